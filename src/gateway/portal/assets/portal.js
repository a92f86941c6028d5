// The team portal. It fills the gateway's page with data from the team's own API, and sends the team's orders there.

import { ask } from './api.js';
import { el, number, refuse, rupiah, share, show, span, table, tell, tiles, time, words } from './dom.js';
import { carryOut, give, onSubmit } from './orders.js';

/** A limit's value: numbers as people write them, budgets in rupiah. */
function amount(name, value) {
  if (typeof value !== 'number') return String(value);
  return name.startsWith('budget') ? rupiah(value) : number(value);
}

async function usage() {
  const { this_month: month, limits, quotas } = await ask('GET', '/_gateway/usage');
  const routes = Object.entries(month.routes).map(([route, counts]) => ({ route, ...counts }));
  show('usage-of-month',
    tiles([
      ['Requests', number(month.requests)],
      ['Answered from the cache', share(month.hits, month.requests)],
      ['Calls to Iluma', number(month.upstream_calls)],
      ['Cost', rupiah(month.cost)],
      ['Saved', rupiah(month.saved)],
    ]),
    table(`By route, from ${month.from} to ${month.to}`, [
      ['Route', (row) => row.route],
      ['Requests', (row) => number(row.requests), 'number'],
      ['Calls', (row) => number(row.upstream_calls), 'number'],
      ['Hits', (row) => number(row.hits), 'number'],
      ['Unknown', (row) => number(row.unknown), 'number'],
      ['Cost', (row) => rupiah(row.cost), 'number'],
      ['Saved', (row) => rupiah(row.saved), 'number'],
    ], routes, 'Your team has sent no request this month. See Examples below.'));
  show('limits-and-use',
    table('Quotas and budget', [
      ['Name', (quota) => words(quota.name)],
      ['Used', (quota) => amount(quota.name, quota.used), 'number'],
      ['Limit', (quota) => amount(quota.name, quota.limit), 'number'],
      ['Left', (quota) => amount(quota.name, quota.remaining), 'number'],
      ['Full again in', (quota) => span(quota.resets_in_seconds), 'number'],
    ], quotas, 'Your team has no quota and no budget.'),
    table('All limits', [
      ['Limit', ([name]) => words(name)],
      ['Value', ([name, value]) => amount(name, value), 'number'],
    ], Object.entries(limits), 'Your team has no limit of its own.'));
}

async function callbacks() {
  const state = document.getElementById('callback-state').value;
  const { callbacks: rows, paused } = await ask('GET', `/_gateway/callbacks?state=${state}&limit=100`);
  show('callback-list', table(`Callbacks: ${state}`, [
    ['Type', (row) => row.type],
    ['Received', (row) => time(row.received)],
    ['Attempts', (row) => number(row.attempts), 'number'],
    ['Reason', (row) => row.last_error ?? (row.last_status ? `status ${row.last_status}` : '–')],
    ['Next attempt', (row) => (row.paused ? `paused: ${row.paused}` : row.next_attempt ? time(row.next_attempt) : '–')],
    ['Delivery', (row) => el('code', {}, row.id)],
    ['Orders', (row) => [el('button', { type: 'button', onclick: () => replay(row) }, 'Replay')]],
  ], rows, state === 'dead' ? 'No dead letters: every callback was delivered, or is still tried.' : 'There are none in this state.'));
  show('paused', ...(paused.length === 0 ? [] : [table('Paused endpoints', [
    ['Type', (pause) => pause.type],
    ['Reason', (pause) => pause.reason],
    ['Since', (pause) => time(pause.since)],
    ['Next probe', (pause) => (pause.next_probe ? time(pause.next_probe) : 'none: resume it')],
  ], paused, '')]));
}

const replay = (row) => give('Replay', `The callback ${row.id} is sent to your URL once more.`, async () => {
  const done = await ask('POST', '/_gateway/callbacks/replay', { id: row.id });
  return `Replayed: ${number(done.replayed)}.`;
}, callbacks);

/** Sends a signed test delivery. It changes nothing, so nothing is asked. */
const test = (type) => carryOut(async () => {
  const { delivered, status, error, duration_ms: took } = await ask('POST', '/_gateway/callbacks/test', { type });
  if (!delivered) throw new Error(`The test of ${type} was not accepted: ${error ?? `status ${status}`}.`);
  return `The test of ${type} was accepted with status ${status} after ${number(took)} ms.`;
}, callbacks);

const sentences = {
  Pause: (type) => `No callback of the type ${type} is sent to you until you resume it. Callbacks wait meanwhile, and become dead letters when they are too old.`,
  Resume: (type) => `Callbacks of the type ${type} are sent to you again.`,
};

function order(name, type) {
  if (name === 'Send test') return test(type);
  return give(name, sentences[name](type), async () => {
    await ask('POST', `/_gateway/callbacks/${name.toLowerCase()}`, { type });
    return `${name}: done for ${type}.`;
  }, callbacks);
}

async function reveal() {
  const { webhook_secrets: secrets } = await ask('GET', '/_gateway/webhook_secret');
  show('secret-text', ...secrets.map((secret) => el('pre', { tabindex: '0' }, secret)));
}

async function rotate({ grace }) {
  await give('Rotate', `A new key is made; the one that you logged in with works for ${grace} more, then this session ends too.`, async () => {
    const made = await ask('POST', '/_gateway/keys/rotate', { grace });
    show('new-key', el('p', {}, 'Store this key now: it is not shown again.'), el('pre', { tabindex: '0' }, made.key));
    return 'Your team has a new key.';
  }, async () => {});
}

/** Runs a part of the page, and tells its fault. */
async function run(part) {
  try {
    await part();
  } catch (error) {
    refuse(error.message);
  }
}

document.getElementById('callback-state').addEventListener('change', () => { tell(''); run(callbacks); });
document.getElementById('reveal').addEventListener('click', () => run(reveal));
for (const button of document.querySelectorAll('button[data-order]')) {
  button.addEventListener('click', () => order(button.dataset.order, button.dataset.type));
}
onSubmit('rotate', rotate);
run(usage);
run(callbacks);
