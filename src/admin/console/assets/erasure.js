// Erasure: a form, the receipt with each node's part, the history, and the export for a restore.

import { ask, text } from './api.js';
import { el, number, pager, save, show, table, tiles, time } from './dom.js';
import { carryOut, give, onSubmit } from './orders.js';

/** The receipts of a page of the table, the receipts of a page of an export, and the most pages of an export. */
const [PAGE, LARGEST, MOST_PAGES] = [20, 1000, 200];

/** The names of the kinds of data that an erasure removes. */
const KINDS = {
  memory: 'Answers in memory',
  disk: 'Answers on disk',
  redis: 'Answers in Redis',
  answers: 'Answers kept for repetitions',
  callbacks: 'Callbacks',
  deliveries: 'Deliveries',
  owners: 'References of owners',
};

const removed = (receipt) => Object.entries(receipt.removed).map(([kind, count]) => [KINDS[kind] ?? kind, count]);

function receipt(made) {
  show('receipt', el('h3', {}, 'Receipt'),
    el('p', {}, el('code', {}, made.id), ' of ', time(made.time)),
    tiles(removed(made).map(([kind, count]) => [kind, number(count)])),
    table('Nodes', [
      ['Node', (node) => node.name, 'name'],
      ['State', (node) => (node.state === 'done' ? 'done' : el('span', { class: 'bad' }, 'left: give the order again once it runs'))],
    ], made.nodes, ''));
}

async function erase(fields, form) {
  const { nodes } = await ask('GET', '/v1/nodes');
  const names = nodes.map((node) => node.name).join(', ');
  const sentence = `Everything that is stored about this person is removed on every node (${number(nodes.length)}: ${names}). It can't be brought back.`;
  await give('Erase', sentence, async () => {
    try {
      receipt(await ask('POST', '/v1/erase', fields));
    } catch (error) {
      // The receipt shows the parts that are done, also if other parts are left.
      if (error.value?.id) receipt(error.value);
      throw error;
    } finally {
      form.reset();
    }
    return 'Erased on every node.';
  }, () => read());
}

/** Reads the history, the newest first, from the receipt that follows `after`. */
export async function read(after) {
  const { erasures, next } = await ask('GET', `/v1/erasures?newest_first=true&limit=${PAGE}${after ? `&after=${after}` : ''}`);
  show('erasures', table('Erasures, the newest first', [
    ['Time', (one) => time(one.time)],
    ['Receipt', (one) => el('code', {}, one.id)],
    ['Removed', (one) => removed(one).filter(([, count]) => count > 0).map(([kind, count]) => `${kind.toLowerCase()}: ${number(count)}`).join(', ') || 'nothing was stored'],
    ['Nodes', (one) => `${number(one.nodes.filter((node) => node.state === 'done').length)} of ${number(one.nodes.length)} done`],
    ['Left', (one) => (one.left.length > 0 ? el('span', { class: 'bad' }, one.left.join(', ')) : 'nothing')],
  ], erasures, 'No person was erased yet. Receipts stay here for 400 days.'),
  pager(after, next, (to) => carryOut(async () => { await read(to); return ''; }, async () => {})));
}

/** Saves all receipts with the keyed hashes that a restore needs. */
async function exported() {
  const parts = [];
  let [after, count] = ['', 0];
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const lines = await text(`/v1/erasures?limit=${LARGEST}${after}`, 'application/x-ndjson');
    parts.push(lines);
    const receipts = lines.split('\n').filter((line) => line !== '');
    count += receipts.length;
    if (receipts.length < LARGEST) {
      save('erasures.jsonl', 'application/x-ndjson', parts);
      return `Exported: ${number(count)} receipts.`;
    }
    after = `&after=${JSON.parse(receipts.at(-1)).id}`;
  }
  throw new Error('There are too many receipts for a browser: use the command "iluma-gateway erasures".');
}

export function bind() {
  onSubmit('erase', (fields, form) => erase(fields, form));
  document.getElementById('export-erasures').addEventListener('click', () => carryOut(exported, async () => {}));
}
