// The tools of every view: elements, numbers, times and questions. Texts are set as text, never as HTML.

/** Makes an element with attributes and children; a child is an element or a text. */
export function el(name, attributes = {}, ...children) {
  const svg = ['svg', 'rect', 'text', 'title', 'g'].includes(name) && attributes.svg !== false;
  const made = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'svg' || value === undefined || value === null || value === false) continue;
    if (key === 'onclick') made.addEventListener('click', value);
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

/** The time zone in which the gateway's days begin, and the reader's time zone. */
export const zone = document.querySelector('meta[name="time-zone"]').content;
export const ownZone = Intl.DateTimeFormat().resolvedOptions().timeZone;

const numbers = new Intl.NumberFormat('id-ID');
const here = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const there = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', timeZone: zone });
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

/** A whole number as people write it: 12.500. */
export const number = (value) => (Number.isFinite(value) ? numbers.format(value) : '–');
/** An amount in rupiah: Rp 12.500. */
export const rupiah = (value) => (Number.isFinite(value) ? `Rp ${numbers.format(value)}` : '–');
/** A share of a whole: 42 %. */
export const share = (part, whole) => (whole > 0 ? `${Math.round((100 * part) / whole)} %` : '–');
/** Bytes with a unit. */
export function bytes(value) {
  if (!Number.isFinite(value)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
/** A time in the reader's zone, with or without its day. Its title has the time in the gateway's zone. */
export function time(value, format = here) {
  if (!value) return '–';
  const at = new Date(value);
  if (Number.isNaN(at.valueOf())) return String(value);
  return el('time', { datetime: value, title: `${zone}: ${there.format(at)}` }, format.format(at));
}
/** The time of a day, without the day. */
export const timeOfDay = (value) => time(value, clock);
/** A name as words: upstream_calls_per_day becomes "Upstream calls per day". */
export const words = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll('_', ' ');
/** A number of seconds as days, or as hours and minutes. */
export function span(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.round((seconds % 3600) / 60)];
  return hours >= 48 ? `${Math.round(hours / 24)} days` : hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min`;
}

/**
 * Makes a table with at most `most` rows of `all`. A column is [heading, function from row to cell, class of cells].
 * If `all` is empty, the text `empty` takes the place of the table.
 */
export function table(caption, columns, all, empty, most = 500) {
  if (all.length === 0) return el('p', { class: 'empty' }, empty);
  const rows = all.slice(0, most);
  const head = el('tr', {}, ...columns.map(([name, , kind]) => el('th', { scope: 'col', class: kind }, name)));
  const line = (row) => el('tr', {}, ...columns.map(([, cell, kind]) => {
    const value = cell(row);
    return el('td', { class: kind }, ...(Array.isArray(value) ? value : [value ?? '–']));
  }));
  const shown = rows.length < all.length ? `${caption}; the first ${number(most)} of ${number(all.length)}` : caption;
  return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    el('table', {}, el('caption', {}, shown), el('thead', {}, head), el('tbody', {}, ...rows.map(line))));
}

/** Buttons to the first and to the next page of a list. `load` reads the page after its argument. */
export function pager(after, next, load) {
  const button = (name, to) => el('button', { type: 'button', onclick: () => load(to) }, name);
  return el('div', { class: 'pager' }, after && button('First page', undefined), next && button('Next page', next));
}

/** Makes the browser save a text as a file. */
export function save(name, type, parts) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  el('a', { href: url, download: name }).click();
  // The browser has taken the text once the click has returned.
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Tiles with one figure each. */
export function tiles(figures) {
  return el('dl', { class: 'tiles' },
    ...figures.map(([name, value]) => el('div', { class: 'tile' }, el('dt', {}, name), el('dd', {}, value))));
}

/** The largest number of days in a chart, and the smallest number of places for bars. */
const [MOST_DAYS, PLACES] = [400, 14];

/** A bar chart of the amounts spent and saved by day. Each entry of `all` has `day`, `spent` and `saved`. */
export function bars(label, all) {
  const days = all.slice(-MOST_DAYS);
  const most = Math.max(1, ...days.map((day) => Math.max(day.spent, day.saved)));
  const width = 600 / Math.max(PLACES, days.length);
  const chart = el('svg', { class: 'chart', viewBox: '0 0 600 150', preserveAspectRatio: 'none', role: 'img', 'aria-label': label });
  days.forEach((day, at) => {
    const bar = (kind, value, shift) => {
      const height = (140 * value) / most;
      return el('rect', { class: kind, x: (at + 0.1 + shift * 0.4) * width, y: 150 - height, width: width * 0.38, height },
        el('title', {}, `${day.day}: ${kind} ${rupiah(value)}`));
    };
    chart.append(bar('spent', day.spent, 0), bar('saved', day.saved, 1));
  });
  const key = (kind) => el('span', { class: `key ${kind}` }, kind);
  return el('figure', {},
    el('figcaption', {}, `${label} `, key('spent'), ' ', key('saved'), `. The highest bar is ${rupiah(most === 1 ? 0 : most)}.`),
    chart,
    el('div', { class: 'axis' }, el('span', {}, days[0]?.day ?? ''), el('span', {}, days.length > 1 ? days.at(-1).day : '')));
}

/** Replaces the content of an element of the page. */
export function show(id, ...children) {
  document.getElementById(id)?.replaceChildren(...children);
}

/** Shows a refusal. */
export function refuse(text) {
  show('refusal', text);
}

/** Shows the outcome of an order. */
export function tell(text) {
  show('outcome', text);
}

/** Asks for confirmation in a dialog with a button for the order. Resolves to true if the reader pressed it. */
export function confirmed(order, sentence) {
  const dialog = document.getElementById('confirm');
  const [text, button, cancel] = ['confirm-text', 'confirm-order', 'confirm-cancel'].map((id) => document.getElementById(id));
  text.replaceChildren(sentence);
  button.textContent = order;
  return new Promise((resolve) => {
    const end = (answer) => () => { dialog.close(); resolve(answer); };
    button.onclick = end(true);
    cancel.onclick = end(false);
    dialog.oncancel = () => resolve(false);
    dialog.showModal();
  });
}
