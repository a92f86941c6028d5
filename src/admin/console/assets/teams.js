// Teams & keys: limits, suspensions, and the keys of a team.

import { ask } from './api.js';
import { el, number, rupiah, show, table, time } from './dom.js';
import { button } from './operator.js';
import { give, onSubmit } from './orders.js';

const limit = (value) => (value === null || value === undefined ? 'none' : number(value));

/** The used part of a budget, which may take two lines, so that the orders of a row fit beside it. */
const budget = (team) =>
  el('span', { class: 'wraps' }, el('span', {}, rupiah(team.budget_used)), ' of ', el('span', {}, rupiah(team.budget_per_month)));

function suspension(team) {
  if (!team.suspended) {
    const what = `Every request of the team ${team.name} is refused with 403, and its callbacks wait, until it is resumed.`;
    return button('suspend', 'Suspend', what, async () => {
      await ask('POST', `/v1/tenants/${team.name}/suspend`);
      return `The team ${team.name} is suspended.`;
    }, read);
  }
  return button('resume', 'Resume', `Requests of the team ${team.name} are served again.`, async () => {
    await ask('POST', `/v1/tenants/${team.name}/resume`);
    return `The team ${team.name} is resumed.`;
  }, read);
}

function list(tenants) {
  const wanted = document.getElementById('team-name').value.trim().toLowerCase();
  const found = tenants.filter((team) => team.name.toLowerCase().includes(wanted));
  const empty = tenants.length === 0 ? 'The configuration has no team. Add a [tenants.NAME] table.' : 'No team has this in its name.';
  show('teams', table('Teams', [
    ['Team', (team) => team.name],
    ['Account', (team) => team.account],
    ['State', (team) => (team.suspended ? el('span', { class: 'bad' }, 'suspended') : 'active')],
    ['Keys', (team) => number(team.keys), 'number'],
    ['Requests/s', (team) => limit(team.requests_per_second), 'number'],
    ['In flight', (team) => limit(team.max_in_flight), 'number'],
    ['Calls/day', (team) => limit(team.upstream_calls_per_day), 'number'],
    ['Calls/month', (team) => limit(team.upstream_calls_per_month), 'number'],
    ['Budget', (team) => (team.budget_per_month ? budget(team) : 'none'), 'number'],
    ['Orders', (team) => [suspension(team)], 'orders'],
  ], found, empty, 200));
}

let known = [];

export async function read() {
  known = (await ask('GET', '/v1/tenants')).tenants;
  list(known);
  await keys();
}

async function keys() {
  const team = document.getElementById('key-team').value;
  if (!team) return;
  const { keys: found } = await ask('GET', `/v1/tenants/${team}/keys`);
  const path = (key) => `/v1/tenants/${team}/keys/${key.id}`;
  const orders = (key) => (key.source === 'file' ? ['change it in the configuration'] : [
    button('rotate_key', 'Rotate', `A successor of the key ${key.id} of ${team} is made; the old key works for 24 more hours.`, async () => {
      secret(await ask('POST', `${path(key)}/rotate`, { grace: '24h' }));
      return `The key ${key.id} of ${team} has a successor.`;
    }, read),
    button('revoke_key', 'Revoke', `The key ${key.id} of ${team} stops working at once, on every node.`, async () => {
      await ask('DELETE', path(key));
      return `The key ${key.id} of ${team} is revoked.`;
    }, read),
  ]);
  show('keys', table(`Keys of ${team}`, [
    ['Id', (key) => el('code', {}, key.id)],
    ['Note', (key) => key.note || '–'],
    ['Source', (key) => (key.source === 'file' ? 'configuration' : 'API')],
    ['Created', (key) => time(key.created)],
    ['Expires', (key) => (key.expires ? time(key.expires) : 'never')],
    ['Last used', (key) => (key.last_used ? time(key.last_used) : 'never')],
    ['Orders', orders, 'orders'],
  ], found, `The team ${team} has no key. An admin creates one below.`));
}

/** Shows a new key. No later page shows the key again. */
function secret(made) {
  show('new-key', el('p', {}, 'Hand this key to the team now: it is not shown again.'), el('pre', { tabindex: '0' }, made.key));
}

async function create({ tenant, note, expires_in: expires }) {
  const until = expires ? `, which ends after ${expires}` : ', which never ends';
  await give('Create key', `The team ${tenant} gets one more key${until}.`, async () => {
    const body = { note: note ?? '' };
    if (expires) body.expires_in = expires;
    secret(await ask('POST', `/v1/tenants/${tenant}/keys`, body));
    return `The team ${tenant} has a new key.`;
  }, async () => {
    document.getElementById('key-team').value = tenant;
    await read();
  });
}

export function bind(run) {
  document.getElementById('key-team').addEventListener('change', () => run(keys));
  document.getElementById('team-name').addEventListener('input', () => list(known));
  onSubmit('find-team', () => list(known));
  onSubmit('create-key', create);
}
