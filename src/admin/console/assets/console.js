// The views of the console. Each fills the page that the gateway rendered from the admin API, and gives its orders.

import { ask } from './api.js';
import { bars, bytes, el, number, refuse, rupiah, share, show, table, tiles, time } from './dom.js';
import { may, metrics } from './operator.js';
import { give as giveOrder, onSubmit } from './orders.js';

/** A button of an order; absent where the role may not give it. */
function order(name, role, sentence, run, danger = false) {
  if (!may(role)) return undefined;
  return el('button', { type: 'button', class: danger ? 'danger' : undefined, onclick: () => give(name, sentence, run) }, name);
}

/** Gives an order; then the view is read again. */
const give = (name, sentence, run) => giveOrder(name, sentence, run, () => view());

const sum = (rows, field) => rows.reduce((total, row) => total + (row[field] ?? 0), 0);
const day = (at) => new Intl.DateTimeFormat('sv-SE', { timeZone: 'Asia/Jakarta' }).format(at);

/** Rows of the books from a day of this month on. */
async function books(from) {
  const now = new Date();
  return (await ask('GET', `/v1/usage?from=${from}&to=${day(now)}`)).rows;
}

function byDay(rows) {
  const days = new Map();
  for (const row of rows) {
    const known = days.get(row.day) ?? { day: row.day, spent: 0, saved: 0 };
    known.spent += row.cost ?? 0;
    known.saved += row.saved ?? 0;
    days.set(row.day, known);
  }
  return [...days.values()].sort((a, b) => a.day.localeCompare(b.day));
}

const metric = (all, name, labels = {}) => all
  .filter((one) => one.name === `iluma_gateway_${name}` && Object.entries(labels).every(([key, value]) => one.labels[key] === value))
  .reduce((total, one) => total + one.value, 0);

async function overview() {
  const today = day(new Date());
  const [rows, all] = await Promise.all([books(`${today.slice(0, 8)}01`), metrics()]);
  const now = rows.filter((row) => row.day === today);
  const figures = (some) => [
    ['Requests', number(sum(some, 'requests'))],
    ['Answered from the cache', share(sum(some, 'hits'), sum(some, 'requests'))],
    ['Calls to Iluma', number(sum(some, 'upstream_calls'))],
    ['Spent', rupiah(sum(some, 'cost'))],
    ['Saved', rupiah(sum(some, 'saved'))],
    ['Unknown outcomes', number(sum(some, 'unknown'))],
  ];
  show('today', tiles(figures(now)));
  show('month', tiles(figures(rows)), bars('Spent and saved by day of this month, in rupiah', byDay(rows)));
  const open = all.filter((one) => one.name === 'iluma_gateway_circuit_open' && one.value === 1).map((one) => one.labels.account);
  const found = [];
  if (open.length > 0) found.push(`Circuit open: Iluma fails for ${open.join(', ')}`);
  if (metric(all, 'redis_up') === 0) found.push('Redis does not answer: this node serves without it');
  show('alarms', found.length === 0
    ? el('p', { class: 'good' }, 'Nothing is wrong as far as this node can see. The circuit to Iluma is closed.')
    : el('ul', { class: 'bad' }, ...found.map((text) => el('li', {}, text))));
}

async function teams() {
  const { tenants } = await ask('GET', '/v1/tenants');
  const suspend = (team) => (team.suspended
    ? order('Resume', 'admin', `Requests of the team ${team.name} are served again.`, async () => {
      await ask('POST', `/v1/tenants/${team.name}/resume`);
      return `The team ${team.name} is resumed.`;
    })
    : order('Suspend', 'admin', `Every request of the team ${team.name} is refused with 403, and its callbacks wait, until it is resumed.`, async () => {
      await ask('POST', `/v1/tenants/${team.name}/suspend`);
      return `The team ${team.name} is suspended.`;
    }, true));
  show('teams', table('Teams', [
    ['Team', (team) => team.name],
    ['Account', (team) => team.account],
    ['State', (team) => (team.suspended ? el('span', { class: 'bad' }, 'suspended') : 'active')],
    ['Keys', (team) => number(Array.isArray(team.keys) ? team.keys.length : team.keys), 'number'],
    ['Requests a second', (team) => number(team.requests_per_second), 'number'],
    ['In flight', (team) => number(team.max_in_flight), 'number'],
    ['Calls a month', (team) => number(team.upstream_calls_per_month), 'number'],
    ['Orders', (team) => [suspend(team)]],
  ], tenants, 'The configuration has no team. Add a [tenants.NAME] table.'));
  const select = document.getElementById('key-team');
  if (select.options.length === 0) select.append(...tenants.map((team) => el('option', { value: team.name }, team.name)));
  await keys(select.value);
}

async function keys(team) {
  if (!team) return;
  const known = await ask('GET', `/v1/tenants/${team}/keys`);
  const path = (key) => `/v1/tenants/${team}/keys/${key.id}`;
  show('keys', table(`Keys of ${team}`, [
    ['Id', (key) => el('code', {}, key.id)],
    ['Note', (key) => key.note],
    ['Source', (key) => key.source],
    ['Created', (key) => time(key.created)],
    ['Expires', (key) => (key.expires ? time(key.expires) : 'never')],
    ['Last used', (key) => (key.last_used ? time(key.last_used) : 'never')],
    ['Orders', (key) => (key.source === 'file' ? ['in the configuration'] : [
      order('Rotate', 'admin', `A successor of the key ${key.id} of ${team} is made; the old key works for 24 more hours.`, async () => {
        const made = await ask('POST', `${path(key)}/rotate`, { grace: '24h' });
        secret(made);
        return `The key ${key.id} of ${team} has a successor.`;
      }),
      order('Revoke', 'admin', `The key ${key.id} of ${team} stops working at once, on every node.`, async () => {
        await ask('DELETE', path(key));
        return `The key ${key.id} of ${team} is revoked.`;
      }, true),
    ])],
  ], known.keys, 'This team has no key. Create one below.'));
}

/** Shows a key that was just made. It is shown this once. */
function secret(made) {
  show('new-key', el('p', {}, 'Hand this key to the team now: it is not shown again.'), el('pre', {}, made.key));
}

async function cache() {
  const all = await metrics();
  const stored = metric(all, 'cache_entries');
  show('size', tiles([['Answers in memory', number(stored)], ['Memory', bytes(metric(all, 'cache_bytes'))], ['Redis', metric(all, 'redis_up') === 1 ? 'answers, or not configured' : 'out']]));
  const routes = new Map();
  for (const one of all.filter((some) => some.name === 'iluma_gateway_requests_total' && some.labels.cache !== '-')) {
    const row = routes.get(one.labels.route) ?? { route: one.labels.route, hits: 0, all: 0 };
    row.all += one.value;
    if (['hit', 'stale', 'collapsed'].includes(one.labels.cache)) row.hits += one.value;
    routes.set(one.labels.route, row);
  }
  show('rates', table('Since the start of this node', [
    ['Route', (row) => row.route],
    ['Requests', (row) => number(row.all), 'number'],
    ['Needed no call', (row) => number(row.hits), 'number'],
    ['Hit rate', (row) => share(row.hits, row.all), 'number'],
  ], [...routes.values()], 'No request that may be cached was served yet.'));
}

async function purge(fields) {
  const what = fields.what === 'all' ? { all: true } : fields.what === 'tenant' ? { tenant: fields.tenant ?? '' } : { route: fields.what };
  await give('Purge', `Stored answers (${Object.entries(what).map(([key, value]) => `${key}: ${value}`).join(', ')}) are removed on every node; the next questions are asked of Iluma, and charged.`, async () => {
    const done = await ask('POST', '/v1/cache/purge', what);
    return `Purged on every node: ${number(done?.removed?.memory ?? 0)} answers in memory, ${number(done?.removed?.redis ?? 0)} in Redis.`;
  });
}

async function callbacks() {
  const state = document.getElementById('callback-state').value;
  const { callbacks: rows } = await ask('GET', `/v1/callbacks?state=${state}&limit=100`);
  show('callbacks', table(`Callbacks: ${state}`, [
    ['Team', (row) => row.tenant],
    ['Type', (row) => row.type],
    ['Received', (row) => time(row.received ?? row.time)],
    ['Attempts', (row) => number(row.attempts), 'number'],
    ['Reason', (row) => row.last_error ?? (row.last_status ? `status ${row.last_status}` : '–')],
    ['Next attempt', (row) => (row.paused ? 'paused' : row.next_attempt ? time(row.next_attempt) : '–')],
    ['Delivery', (row) => el('code', {}, row.id)],
    ['Orders', (row) => [
      order('Replay', 'operator', `The callback ${row.id} is sent to ${row.tenant ?? 'its owners'} once more.`, async () => {
        const done = await ask('POST', '/v1/callbacks/replay', { id: row.id });
        return `Replayed: ${number(done.replayed)}.`;
      }),
    ]],
  ], rows, state === 'dead' ? 'No dead letters: every callback was delivered, or is still tried.' : 'There are none in this state.'));
}

async function erase(fields) {
  await give('Erase', 'Everything that is stored about this person is removed on every node, and can not be brought back.', async () => {
    const receipt = await ask('POST', '/v1/erase', fields);
    const removed = Object.entries(receipt.removed ?? receipt).filter(([, count]) => typeof count === 'number');
    show('receipt', el('h2', {}, 'Receipt'), receipt.id ? el('p', {}, el('code', {}, receipt.id)) : undefined,
      el('ul', {}, ...removed.map(([what, count]) => el('li', {}, `${what}: ${number(count)}`))),
      table('Nodes', [['Node', (node) => node.name], ['State', (node) => node.state]], receipt.nodes ?? [], 'Done on every node.'));
    return 'Erased.';
  });
}

async function money() {
  const from = document.getElementById('from').value || `${day(new Date()).slice(0, 8)}01`;
  const rows = await books(from);
  show('chart', bars('Spent and saved by day, in rupiah', byDay(rows)));
  show('books', table('By day, team and route', [
    ['Day', (row) => row.day],
    ['Team', (row) => row.tenant],
    ['Route', (row) => row.route],
    ['Requests', (row) => number(row.requests), 'number'],
    ['Calls', (row) => number(row.upstream_calls), 'number'],
    ['Billable', (row) => number(row.billable), 'number'],
    ['Unknown', (row) => number(row.unknown), 'number'],
    ['Cost', (row) => rupiah(row.cost), 'number'],
    ['Saved', (row) => rupiah(row.saved), 'number'],
  ], rows, 'Nothing was booked in this time.'));
  const unknown = await ask('GET', '/v1/usage/unknown');
  show('unknown', table('Calls whose outcome is unknown', [
    ['Number', (call) => number(call.number), 'number'],
    ['Booked', (call) => time(call.booked)],
    ['Team', (call) => call.tenant],
    ['Route', (call) => call.route],
    ['Why', (call) => call.why],
  ], unknown.calls, 'Every call is settled.'));
}

/** Entries of the audit log since a day, the oldest first; at most ten pages. */
async function entries(from) {
  const all = [];
  let after = '';
  for (let page = 0; page < 10; page += 1) {
    const found = await ask('GET', `/v1/audit?limit=1000&from=${from}${after}`);
    all.push(...found.entries);
    if (!found.next) break;
    after = `&after=${encodeURIComponent(found.next)}`;
  }
  return all;
}

async function nodes() {
  const week = await entries(day(new Date(Date.now() - 7 * 86_400_000)));
  show('audit', table('Orders of the last seven days, the newest first', [
    ['Time', (entry) => time(entry.time)],
    ['Token', (entry) => entry.token],
    ['Role', (entry) => entry.role],
    ['Order', (entry) => entry.order],
    ['Subject', (entry) => (typeof entry.subject === 'object' ? JSON.stringify(entry.subject) : entry.subject)],
    ['Outcome', (entry) => entry.outcome],
    ['Node', (entry) => entry.node],
  ], week.reverse(), 'No order was given in the last seven days.'));
}

const views = { overview, teams, cache, callbacks, money, nodes };
const view = views[document.body.dataset.view] ?? (async () => {});

async function start() {
  try {
    await view();
  } catch (error) {
    refuse(error.message);
  }
}

document.getElementById('key-team')?.addEventListener('change', (event) => keys(event.target.value));
document.getElementById('callback-state')?.addEventListener('change', start);
onSubmit('range', start);
onSubmit('purge', purge);
onSubmit('erase', erase);
onSubmit('create-key', async (fields) => {
  await give('Create key', `The team ${fields.team} gets one more key.`, async () => {
    const body = { note: fields.note ?? '' };
    if (fields.expires_in) body.expires_in = fields.expires_in;
    secret(await ask('POST', `/v1/tenants/${fields.team}/keys`, body));
    return `The team ${fields.team} has a new key.`;
  });
});
onSubmit('endpoint', async (fields, form) => {
  const name = form.dataset.order;
  const body = fields.type ? { tenant: fields.team, type: fields.type } : { tenant: fields.team };
  const verb = { Pause: 'No callback is sent to', Resume: 'Callbacks are sent again to', Test: 'A signed test is sent to' }[name];
  await give(name, `${verb} ${fields.team}${fields.type ? ` (${fields.type})` : ''}.`, async () => {
    await ask('POST', `/v1/callbacks/${name.toLowerCase()}`, body);
    return `${name}: done.`;
  });
});
document.querySelectorAll('#endpoint button').forEach((button) => button.addEventListener('click', () => { button.form.dataset.order = button.value; }));
onSubmit('replay', async (fields) => {
  await give('Replay', `Every dead letter of ${fields.team} since ${fields.since} is sent once more.`, async () => {
    const since = new Date(fields.since).toISOString();
    const body = { tenant: fields.team, since };
    if (fields.until) body.until = new Date(fields.until).toISOString();
    const done = await ask('POST', '/v1/callbacks/replay', body);
    return `Replayed: ${number(done.replayed)}.`;
  });
});
start();
