// Cache: size, hit rate by route, and purges, which are counted first.

import { ask } from './api.js';
import { bytes, number, share, show, table, tiles } from './dom.js';
import { metrics, series, total } from './operator.js';
import { give, onSubmit } from './orders.js';

/** The values of the label `cache` for requests that needed no call of their own. */
const NEEDED_NO_CALL = ['hit', 'stale', 'collapsed', 'shared'];

export async function read() {
  const [all, { nodes }] = await Promise.all([metrics(), ask('GET', '/v1/nodes')]);
  const own = nodes.find((node) => node.name === document.body.dataset.node);
  const redis = (own?.redis ?? []).map((one) => [`Redis (${one.name})`, one.up ? 'answers' : 'out']);
  const disk = total(all, 'cache_disk_up') === 1 ? [] : [['Cache on disk', 'out: see Overview']];
  show('size', tiles([['Answers in memory', number(total(all, 'cache_entries'))], ['Memory', bytes(total(all, 'cache_bytes'))], ...disk, ...redis]));
  const routes = new Map();
  for (const { labels, value } of series(all, 'requests_total').filter((one) => one.labels.cache !== '-')) {
    const row = routes.get(labels.route) ?? { route: labels.route, hits: 0, all: 0 };
    row.all += value;
    if (NEEDED_NO_CALL.includes(labels.cache)) row.hits += value;
    routes.set(labels.route, row);
  }
  show('rates', table(`Since the start of the node ${document.body.dataset.node}`, [
    ['Route', (row) => row.route],
    ['Requests', (row) => number(row.all), 'number'],
    ['Needed no call', (row) => number(row.hits), 'number'],
    ['Hit rate', (row) => share(row.hits, row.all), 'number'],
  ], [...routes.values()].filter((row) => row.all > 0), 'No request that may be cached was served yet. Send one, and look again.'));
}

const levels = ({ memory, disk, redis }) => `${number(memory)} in memory, ${number(disk)} on disk, ${number(redis)} in Redis`;

async function purge({ what, tenant }) {
  const [order, name] = what === 'all' ? [{ all: true }, 'all stored answers']
    : what === 'tenant' ? [{ tenant }, `the stored answers of the team ${tenant} alone`]
      : [{ route: what }, `the stored answers of the route ${what}`];
  const { removed } = await ask('POST', '/v1/cache/purge', { ...order, dry_run: true });
  const sentence = `This removes ${name} on every node: ${levels(removed)}. The next questions are asked of Iluma, and charged.`;
  await give('Purge', sentence, async () => {
    const done = await ask('POST', '/v1/cache/purge', order);
    return `Purged on every node: ${levels(done.removed)}.`;
  }, read);
}

export function bind() {
  const what = document.getElementById('what');
  const team = document.getElementById('purge-team');
  if (what === null) return;
  const choose = () => { team.parentElement.hidden = what.value !== 'tenant'; };
  what.addEventListener('change', choose);
  choose();
  onSubmit('purge', purge);
}
