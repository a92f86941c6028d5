// Live: the access log as it is written, filtered by the gateway, with a bounded number of lines on the page.

import { el, number, show, timeOfDay } from './dom.js';

/** The largest number of lines that the page keeps. */
const MOST = 200;

const fields = [
  ['Time', (line) => timeOfDay(line.time)],
  ['Team', (line) => line.tenant ?? 'unknown key'],
  ['Route', (line) => line.route],
  ['Method', (line) => line.method],
  ['Status', (line) => el('span', { class: line.status >= 500 ? 'bad' : undefined }, String(line.status)), 'number'],
  ['Reason', (line) => line.reason ?? '–'],
  ['Cache', (line) => (line.cache === '-' ? 'no part' : line.cache)],
  ['Took', (line) => milliseconds(line.duration_us), 'number'],
  ['Iluma', (line) => (line.upstream_us === undefined ? '–' : `${line.upstream_status ?? 'no answer'}, ${milliseconds(line.upstream_us)}`), 'number'],
  ['Client', (line) => line.client ?? '–'],
  ['Request', (line) => el('code', { title: line.request_id }, line.request_id.slice(0, 8))],
];

function milliseconds(micros) {
  const value = micros / 1000;
  return `${value < 10 ? value.toFixed(1) : number(Math.round(value))} ms`;
}

let stream = null;
/** Lines that are not on the page yet, the oldest first. */
let waiting = [];
let counts = { seen: 0, lost: 0 };
let isPaused = false;
let isDrawing = false;
const byId = (id) => document.getElementById(id);

function state(text) {
  const lost = counts.lost > 0 ? ` ${number(counts.lost)} lines were lost, because this browser was too slow for them: use a filter.` : '';
  show('live-state', `${text}${lost}`);
}

function tell() {
  if (isPaused) state(`Paused. ${number(waiting.length)}${waiting.length === MOST ? ' or more' : ''} new lines wait.`);
  else if (counts.seen === 0) state('Connected. No request has ended yet; lines appear here by themselves.');
  else state(`${number(counts.seen)} lines since you began to watch, the newest first. The page keeps ${MOST}.`);
}

/** Puts the waiting lines on the page, once for each frame. */
function draw() {
  isDrawing = false;
  if (!isPaused && waiting.length > 0) {
    const body = byId('live').querySelector('tbody') ?? empty();
    body.prepend(...waiting.reverse().map((line) => el('tr', {}, ...fields.map(([, cell, kind]) => el('td', { class: kind }, cell(line))))));
    waiting = [];
    while (body.rows.length > MOST) body.deleteRow(-1);
  }
  tell();
}

/** Shows an empty table, and returns its body. */
function empty() {
  const body = el('tbody');
  const head = el('tr', {}, ...fields.map(([name, , kind]) => el('th', { scope: 'col', class: kind }, name)));
  show('live', el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Requests' }, el('table', {}, el('thead', {}, head), body)));
  return body;
}

function later() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(draw);
}

function clear() {
  [waiting, counts] = [[], { seen: 0, lost: 0 }];
  show('live');
  tell();
}

/** Follows the log by the form's filters, from now on. */
export async function read() {
  stream?.close();
  clear();
  state('Connecting…');
  const wanted = new URLSearchParams([...new FormData(byId('follow'))].filter(([, value]) => value !== ''));
  stream = new EventSource(`/v1/live?${wanted}`);
  stream.onopen = tell;
  stream.onmessage = (event) => {
    counts.seen += 1;
    waiting.push(JSON.parse(event.data));
    if (waiting.length > MOST) waiting.shift();
    later();
  };
  stream.addEventListener('dropped', (event) => {
    counts.lost += JSON.parse(event.data).dropped;
    later();
  });
  stream.onerror = () => {
    const isOver = stream.readyState === EventSource.CLOSED;
    state(isOver
      ? 'The gateway refused the stream: the session has ended, or too many people watch. Load the page again.'
      : 'The connection broke. Connecting again…');
  };
}

export function bind() {
  const pause = byId('live-pause');
  pause.addEventListener('click', () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? 'Resume the list' : 'Pause the list';
    later();
  });
  byId('live-clear').addEventListener('click', clear);
  byId('follow').addEventListener('change', read);
  byId('follow').addEventListener('submit', (event) => event.preventDefault());
}
