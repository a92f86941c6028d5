// Overview: alarms, today and this month. The view reloads its data while it is visible.

import { ask } from './api.js';
import { bars, el, number, rupiah, share, show, tiles, time, words, zone } from './dom.js';
import { byDay, sum } from './operator.js';

/** The time between two reloads, in milliseconds. */
export const EVERY = 30_000;

/** The heading and the path of the view with the details of an alarm, by the alarm's name. */
const places = {
  dead_letters: ['Callbacks', '/console/callbacks'],
  callbacks_unowned: ['Callbacks', '/console/callbacks'],
  endpoint_paused: ['Callbacks', '/console/callbacks'],
  unknown_calls_old: ['Money', '/console/money'],
  quota_spent: ['Teams & keys', '/console/teams'],
  quota_nearly_spent: ['Teams & keys', '/console/teams'],
  key_expires: ['Teams & keys', '/console/teams'],
};

/** Shows the alarms of one name: the condition of each alarm, then one instruction for all of them. */
function kind(alarms) {
  const [{ name, severity, action }] = alarms;
  const [view, path] = places[name] ?? ['Nodes & audit', '/console/nodes'];
  const one = ({ since, nodes, subject, message }) => el('p', {},
    subject && el('strong', {}, `${subject}: `), `${message}, `, el('span', { class: 'empty' }, 'since ', time(since), ` on ${nodes.join(', ')}`));
  return el('li', { class: `alarm ${severity}` },
    el('p', {}, el('span', { class: 'badge' }, severity), ' ', el('strong', {}, words(name))),
    ...alarms.map(one),
    el('p', {}, action, ' See ', el('a', { href: path }, view), '.'));
}

/** Groups alarms by name, in the order of the first alarm of each group. */
function byName(alarms) {
  const kinds = new Map();
  for (const alarm of alarms) kinds.set(alarm.name, [...(kinds.get(alarm.name) ?? []), alarm]);
  return [...kinds.values()];
}

export async function read() {
  const [{ rows, from, to: today }, { alarms }] = await Promise.all([ask('GET', '/v1/usage?by=day'), ask('GET', '/v1/alarms')]);
  const open = [...new Set(alarms.filter((one) => one.name === 'circuit_open').map((one) => one.subject))];
  show('alarms', alarms.length > 0
    ? el('ul', { class: 'alarms' }, ...byName(alarms).map(kind))
    : el('p', { class: 'good' }, 'Nothing needs you now, on any node.'));
  const figures = (some) => tiles([
    ['Requests', number(sum(some, 'requests'))],
    ['From the cache', share(sum(some, 'hits'), sum(some, 'requests'))],
    ['Calls to Iluma', number(sum(some, 'upstream_calls'))],
    ['Spent', rupiah(sum(some, 'cost'))],
    ['Saved', rupiah(sum(some, 'saved'))],
    ['Unknown calls', number(sum(some, 'unknown'))],
  ]);
  show('today', figures(rows.filter((row) => row.day === today)),
    el('p', { class: 'empty' }, `All nodes, since midnight in ${zone}. `,
      open.length > 0 ? el('strong', { class: 'bad' }, `Circuit to Iluma open for ${open.join(', ')}.`) : 'Circuit to Iluma closed.',
      ' Read at ', time(new Date().toISOString()), `, again every ${EVERY / 1000} s.`));
  show('month', figures(rows), bars('By day of this month, in rupiah:', byDay(rows, from, today)));
}
