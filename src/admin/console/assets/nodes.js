// Nodes & audit: the reports of the nodes, and the orders of operators.

import { ask } from './api.js';
import { el, number, pager, show, span, table, time, words } from './dom.js';
import { carryOut, onSubmit } from './orders.js';

/** The number of entries of a page. */
const PAGE = 50;

/** Returns the lines of a cell, or `empty` if there are none. */
const lines = (all, empty) => (all.length === 0 ? [empty] : all.map((one) => el('div', {}, ...one)));
const bad = (text) => el('span', { class: 'bad' }, text);
/** The beginning of a long text; its title has the whole text. */
const short = (text) => (text ? el('code', { title: text }, text.slice(0, 8)) : '–');

const redis = (node) => lines((node.redis ?? []).map((one) => [
  `${one.name} (${one.topology}): `, one.up ? 'up' : bad(`out: ${one.cause ?? 'no answer'}`), ' since ', time(one.since),
]), 'not configured');

const reload = ({ last_reload: last }) => (last === undefined ? ['–'] : [time(last.time), last.success ? ' in effect' : bad(` refused: ${last.fault}`)]);

async function nodes() {
  const { nodes: found } = await ask('GET', '/v1/nodes');
  const kinds = (field) => new Set(found.map((node) => node[field]).filter((value) => value)).size;
  const differ = [['version', 'versions'], ['configuration', 'configuration files']].filter(([field]) => kinds(field) > 1)
    .map(([field, name]) => `${name} (${kinds(field)})`);
  show('nodes',
    ...(differ.length > 0 ? [el('p', { class: 'notice' }, `The nodes differ in their ${differ.join(' and ')}. That is as it should be while a change is rolled out, or where each file names its node.`)] : []),
    table(`${number(found.length)} ${found.length === 1 ? 'node' : 'nodes'}`, [
      ['Node', (node) => node.name, 'name'],
      ['State', (node) => lines([
        node.state === 'live' ? ['live'] : [bad('silent'), ' since ', time(node.seen)],
        ...(node.uptime_seconds === undefined ? [] : [[`up ${span(node.uptime_seconds)}`]]),
      ])],
      ['Version', (node) => [node.version ?? '–', ...(node.revision && node.revision !== 'unknown' ? [' ', short(node.revision)] : [])]],
      ['Configuration', (node) => short(node.configuration)],
      ['Last reload', reload],
      ['Redis', redis],
      ['Certificates', (node) => lines((node.certificates ?? []).map((one) => [`${one.listener}: until `, time(one.expires)]), 'none')],
      ['Backing off', (node) => lines((node.backing_off ?? []).map((one) => [`${one.account}: ${one.method} ${one.path} until `, time(one.until)]), 'nowhere')],
    ], found, 'No node has reported yet. Load the page again in a few seconds.'));
}

/** Returns the beginning of a day in the reader's time zone. `shift` is 0 for the day itself, and 1 for the next. */
function moment(day, shift) {
  const at = new Date(`${day}T00:00:00`);
  at.setDate(at.getDate() + shift);
  return at.toISOString();
}

const counts = (entry) => Object.entries(entry.counts ?? {}).filter(([, count]) => count > 0).map(([what, count]) => `${what} ${number(count)}`).join(', ') || '–';

async function audit(after) {
  const [from, to] = ['audit-from', 'audit-to'].map((id) => document.getElementById(id).value);
  const query = new URLSearchParams({ newest_first: true, limit: PAGE });
  if (from) query.set('from', moment(from, 0));
  if (to) query.set('to', moment(to, 1));
  if (after) query.set('after', after);
  const { entries, next } = await ask('GET', `/v1/audit?${query}`);
  show('audit', table('Orders, the newest first', [
    ['Time', (entry) => time(entry.time)],
    ['Order', (entry) => words(entry.order), 'name'],
    ['Subject', (entry) => entry.subject ?? '–', 'long'],
    ['Outcome', (entry) => (['done', 'begun'].includes(entry.outcome) ? entry.outcome : bad(entry.outcome))],
    ['Counts', counts, 'long'],
    ['Token', (entry) => `${entry.token} (${entry.role})`],
    ['From', (entry) => entry.peer ?? '–'],
    ['Node', (entry) => entry.node, 'name'],
  ], entries, from || to ? 'No order was given on these days.' : 'No order was given yet. Every order of the console and of the API appears here for 400 days.'),
  pager(after, next, (page) => carryOut(async () => { await audit(page); return ''; }, async () => {})));
}

export async function read() {
  await Promise.all([nodes(), audit()]);
}

export function bind(run) {
  onSubmit('audit-range', () => run(() => audit()));
}
