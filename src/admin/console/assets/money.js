// Money: the amounts spent and saved, budgets, and calls that are settled by hand.

import { ask, text } from './api.js';
import { bars, el, number, pager, rupiah, save, share, show, table, tiles, time } from './dom.js';
import { byDay, may, sum } from './operator.js';
import { carryOut, give, onSubmit } from './orders.js';

/** The columns that name a row, by what the gateway sums. */
const NAMES = {
  tenant: [['Team', (row) => row.tenant]],
  route: [['Route', (row) => row.route]],
  day: [['Day', (row) => row.day]],
};
NAMES['day,tenant,route'] = [...NAMES.day, ...NAMES.tenant, ...NAMES.route];

/** The rows of a page of the table, the rows of a page of the CSV, and the largest number of pages of the CSV. */
const [PAGE, LARGEST, MOST_PAGES] = [500, 10_000, 200];

/** The reasons why an outcome is unknown. */
const WHY = {
  pending: 'pending: a callback or a GET will settle it',
  lost: 'lost: nobody saw its answer',
  open: 'open: its process ended during it',
};

/** Returns the days and the team of the form, and the columns by which the table sums. */
function chosen() {
  const fields = Object.fromEntries([...new FormData(document.getElementById('range'))].filter(([, value]) => value !== ''));
  const { by, ...range } = fields;
  return { by, range };
}

const usage = (range, more) => `/v1/usage?${new URLSearchParams({ ...range, ...more })}`;

async function books() {
  const { by, range } = chosen();
  const [{ rows, from, to }] = await Promise.all([ask('GET', usage(range, { by: 'day' })), lines(by, range)]);
  // The form shows the days that the gateway chose, in its own time zone.
  document.getElementById('from').value = from;
  document.getElementById('to').value = to;
  show('sums', tiles([
    ['Requests', number(sum(rows, 'requests'))],
    ['Calls to Iluma', number(sum(rows, 'upstream_calls'))],
    ['Billable', number(sum(rows, 'billable'))],
    ['Unknown', number(sum(rows, 'unknown'))],
    ['Spent', rupiah(sum(rows, 'cost'))],
    ['Saved', rupiah(sum(rows, 'saved'))],
  ]));
  show('chart', bars('By day, in rupiah:', byDay(rows, from, to)));
}

/** Shows a page of the rows. Teams and routes fit into one answer, so they are sorted by cost, the highest first. */
async function lines(by, range, after) {
  const isWhole = by === 'tenant' || by === 'route';
  const { rows, next, from, to } = await ask('GET', usage(range, { by, ...(!isWhole && { limit: PAGE }), ...(after && { after }) }));
  if (isWhole) rows.sort((a, b) => b.cost - a.cost);
  const words = document.querySelector(`#by option[value="${by}"]`).textContent;
  show('books', table(`From ${from} to ${to}, by ${words}`, [
    ...NAMES[by],
    ['Requests', (row) => number(row.requests), 'number'],
    ['From the cache', (row) => share(row.hits, row.requests), 'number'],
    ['Calls', (row) => number(row.upstream_calls), 'number'],
    ['Billable', (row) => number(row.billable), 'number'],
    ['Unknown', (row) => number(row.unknown), 'number'],
    ['Cost', (row) => rupiah(row.cost), 'number'],
    ['Saved', (row) => rupiah(row.saved), 'number'],
  ], rows, 'Nothing was booked on these days. Choose others.'),
  pager(after, next, (page) => carryOut(async () => { await lines(by, range, page); return ''; }, async () => {})));
}

async function budgets() {
  const { tenants } = await ask('GET', '/v1/tenants');
  const bounded = tenants.filter((team) => team.budget_per_month > 0);
  const used = (team) => team.budget_used / team.budget_per_month;
  show('budgets', table(`This month; ${number(tenants.length - bounded.length)} of ${number(tenants.length)} teams have no budget`, [
    ['Team', (team) => team.name],
    ['Budget', (team) => rupiah(team.budget_per_month), 'number'],
    ['Used', (team) => rupiah(team.budget_used), 'number'],
    ['Left', (team) => rupiah(Math.max(0, team.budget_per_month - team.budget_used)), 'number'],
    ['Share', (team) => [
      el('meter', { min: 0, max: 1, high: 0.8, optimum: 0, value: Math.min(1, used(team)), 'aria-label': `Budget of ${team.name}` }),
      ` ${share(team.budget_used, team.budget_per_month)}`,
    ], 'number'],
    ['Beyond it', (team) => (team.quota_mode === 'shadow' ? 'counted' : 'refused')],
  ], bounded.sort((a, b) => used(b) - used(a)), 'No team has a budget. Set tenants.NAME.budget_per_month in the configuration.'));
}

/** The calls that are listed, by node and number. */
let listed = new Map();
const named = (call) => `${call.node}/${call.number}`;

async function unknown(after) {
  const { calls, next } = await ask('GET', `/v1/usage/unknown?limit=100${after ? `&after=${encodeURIComponent(after)}` : ''}`);
  listed = new Map(calls.map((call) => [named(call), call]));
  const choice = (call) => el('input', { type: 'checkbox', name: 'call', value: named(call), form: 'settle', 'aria-label': `Choose the call ${named(call)}` });
  show('unknown', table('Calls whose outcome is unknown, the oldest first', [
    ...(may('settle') ? [['Choose', choice]] : []),
    ['Call', (call) => el('code', {}, named(call))],
    ['Booked', (call) => time(call.booked)],
    ['Team', (call) => call.tenant],
    ['Route', (call) => call.route],
    ['Why', (call) => WHY[call.why] ?? call.why],
  ], calls, 'Every call is settled: nothing to do here.'),
  pager(after, next, (to) => carryOut(async () => { await unknown(to); return ''; }, async () => {})));
  document.getElementById('settle')?.toggleAttribute('hidden', calls.length === 0);
}

async function settle({ outcome, note }) {
  const chosen = [...document.querySelectorAll('input[name="call"]:checked')].map((box) => listed.get(box.value));
  if (chosen.length === 0) throw new Error('Choose at least one call in the table.');
  const shown = chosen.slice(0, 5).map((call) => `${named(call)} (${call.tenant}, ${call.route})`).join(', ');
  const more = chosen.length > 5 ? ` and ${number(chosen.length - 5)} more` : '';
  const words = outcome === 'billable' ? 'billable: its price is added to the cost' : 'not billable: it costs nothing';
  const sentence = `${number(chosen.length)} ${chosen.length === 1 ? 'call is' : 'calls are'} settled as ${words}. ${shown}${more}. This can't be taken back.`;
  await give('Settle', sentence, async () => {
    const calls = chosen.map(({ node, number: at }) => ({ node, number: at, outcome, ...(note && { note }) }));
    const done = await ask('POST', '/v1/usage/unknown/settle', { calls });
    const before = done.not_open.length > 0 ? ` Settled before: ${number(done.not_open.length)}.` : '';
    return `Settled: ${number(done.settled.length)}.${before}`;
  }, read);
}

/** Saves every row of the chosen days, which the gateway gives in pages. */
async function csv() {
  const { range } = chosen();
  const parts = [];
  let after;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const [head, ...rows] = (await text(usage(range, { limit: LARGEST, ...(after && { after }) }), 'text/csv')).trimEnd().split('\r\n');
    parts.push(...(page === 0 ? [head] : []), ...rows);
    if (rows.length < LARGEST) {
      save(`usage-${range.from}-${range.to}.csv`, 'text/csv', [`${parts.join('\r\n')}\r\n`]);
      return 'Downloaded.';
    }
    after = rows.at(-1).split(',', 3).join(',');
  }
  throw new Error('There are too many rows for a browser: choose fewer days, or use the command "iluma-gateway usage".');
}

export async function read() {
  await Promise.all([books(), budgets(), unknown()]);
}

export function bind(run) {
  onSubmit('range', () => run(books));
  document.getElementById('csv').addEventListener('click', () => carryOut(csv, async () => {}));
  onSubmit('settle', settle);
}
