// Elements, numbers, times and questions: what every view needs. Texts are set as text, never as HTML.

/** Makes an element with attributes and children; a child is an element or a text. */
export function el(name, attributes = {}, ...children) {
  const svg = ['svg', 'rect', 'text', 'title', 'g'].includes(name) && attributes.svg !== false;
  const made = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'svg' || value === undefined || value === null || value === false) continue;
    if (key === 'onclick') made.addEventListener('click', value);
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

const numbers = new Intl.NumberFormat('id-ID');
const here = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const jakarta = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', timeZone: 'Asia/Jakarta' });

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
/** A time in the reader's zone; the title has it in Jakarta's. */
export function time(value) {
  if (!value) return '–';
  const at = new Date(value);
  if (Number.isNaN(at.valueOf())) return String(value);
  return el('time', { datetime: value, title: `Asia/Jakarta: ${jakarta.format(at)}` }, here.format(at));
}

/** Rows of a table; `columns` are [heading, cell of a row, 'number' for figures]. An empty table says what to do. */
export function table(caption, columns, rows, empty) {
  if (rows.length === 0) return el('p', { class: 'empty' }, empty);
  const head = el('tr', {}, ...columns.map(([name, , kind]) => el('th', { scope: 'col', class: kind }, name)));
  const line = (row) => el('tr', {}, ...columns.map(([, cell, kind]) => {
    const value = cell(row);
    return el('td', { class: kind }, ...(Array.isArray(value) ? value : [value ?? '–']));
  }));
  return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    el('table', {}, el('caption', {}, caption), el('thead', {}, head), el('tbody', {}, ...rows.map(line))));
}

/** Tiles with one figure each. */
export function tiles(figures) {
  return el('dl', { class: 'tiles' },
    ...figures.map(([name, value]) => el('div', { class: 'tile' }, el('dt', {}, name), el('dd', {}, value))));
}

/** Bars of two series by day. */
export function bars(label, days) {
  const most = Math.max(1, ...days.map((day) => Math.max(day.spent, day.saved)));
  const width = 600 / Math.max(1, days.length);
  const chart = el('svg', { class: 'chart', viewBox: '0 0 600 160', preserveAspectRatio: 'none', role: 'img', 'aria-label': label });
  days.forEach((day, at) => {
    const bar = (kind, value, shift) => {
      const height = (130 * value) / most;
      return el('rect', { class: kind, x: at * width + shift * width * 0.4 + 1, y: 140 - height, width: Math.max(1, width * 0.38), height },
        el('title', {}, `${day.day}: ${kind} ${rupiah(value)}`));
    };
    chart.append(bar('spent', day.spent, 0), bar('saved', day.saved, 1));
  });
  return chart;
}

/** Replaces what an element of the page shows. */
export function show(id, ...children) {
  document.getElementById(id)?.replaceChildren(...children);
}

/** Tells a refusal. */
export function refuse(text) {
  show('refusal', text);
}

/** Tells what became of an order. */
export function tell(text) {
  show('outcome', text);
}

/** Asks once, in a dialog whose button has the order's own name. Returns true if it was pressed. */
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
