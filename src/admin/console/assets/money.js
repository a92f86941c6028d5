// Money: what was spent and saved, budgets, and calls that are settled by hand.

import { ask, text } from './api.js';
import { bars, el, number, pager, rupiah, save, share, show, table, tiles, time } from './dom.js';
import { byDay, may, sum } from './operator.js';
import { carryOut, give, onSubmit } from './orders.js';

/** The columns that name a row, by what it sums. */
const NAMES = {
  team: [['Team', (row) => row.tenant]],
  route: [['Route', (row) => row.route]],
  day: [['Day', (row) => row.day]],
};
NAMES.each = [...NAMES.day, ...NAMES.team, ...NAMES.route];

const FIGURES = ['requests', 'hits', 'upstream_calls', 'billable', 'unknown', 'cost', 'saved'];

/** The reasons why an outcome is unknown. */
const WHY = {
  pending: 'pending: a callback or a GET will settle it',
  lost: 'lost: nobody saw its answer',
  open: 'open: its process ended during it',
};

/** Sums rows by what names them; the dearest come first, and days in their order. */
function sums(rows, by) {
  const found = new Map();
  for (const row of rows) {
    const name = NAMES[by].map(([, cell]) => cell(row)).join(' ');
    const known = found.get(name) ?? { day: row.day, tenant: row.tenant, route: row.route };
    for (const figure of FIGURES) known[figure] = (known[figure] ?? 0) + row[figure];
    found.set(name, known);
  }
  const order = by === 'team' || by === 'route' ? (a, b) => b.cost - a.cost : (a, b) => a.day.localeCompare(b.day);
  return [...found.values()].sort(order);
}

/** The query of the form. */
function query() {
  const fields = Object.fromEntries([...new FormData(document.getElementById('range'))].filter(([, value]) => value !== ''));
  const { by, ...wanted } = fields;
  return { by, path: `/v1/usage?${new URLSearchParams(wanted)}` };
}

async function books() {
  const { by, path } = query();
  const { rows, from, to } = await ask('GET', path);
  // The days that the gateway took: those of its own time zone.
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
  show('books', table(`From ${from} to ${to}, by ${by === 'each' ? 'day, team and route' : by}`, [
    ...NAMES[by],
    ['Requests', (row) => number(row.requests), 'number'],
    ['From the cache', (row) => share(row.hits, row.requests), 'number'],
    ['Calls', (row) => number(row.upstream_calls), 'number'],
    ['Billable', (row) => number(row.billable), 'number'],
    ['Unknown', (row) => number(row.unknown), 'number'],
    ['Cost', (row) => rupiah(row.cost), 'number'],
    ['Saved', (row) => rupiah(row.saved), 'number'],
  ], sums(rows, by), 'Nothing was booked on these days. Choose others.'));
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

async function csv() {
  const { path } = query();
  const { from, to } = Object.fromEntries(new FormData(document.getElementById('range')));
  save(`usage-${from}-${to}.csv`, 'text/csv', [await text(path, 'text/csv')]);
  return 'Downloaded.';
}

export async function read() {
  await Promise.all([books(), budgets(), unknown()]);
}

export function bind(run) {
  onSubmit('range', () => run(books));
  document.getElementById('csv').addEventListener('click', () => carryOut(csv, async () => {}));
  onSubmit('settle', settle);
}
