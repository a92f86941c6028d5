// Callbacks: lists by state, the attempts at each callback, replays, pauses, tests.

import { ask } from './api.js';
import { el, number, show, pager, table, time } from './dom.js';
import { button } from './operator.js';
import { carryOut, give, onSubmit } from './orders.js';

/** The sentence of an empty list, by state. */
const EMPTY = {
  dead: 'No dead letters: every callback was delivered, or is still tried.',
  queued: 'Nothing is queued: every callback was delivered, or has become a dead letter.',
  delivered: 'Nothing was delivered yet. A callback appears here once its team has taken it.',
  unowned: 'Every callback has an owner.',
};

const result = ({ status, error }) => error ?? (status ? `status ${status}` : '–');

/** Reads the list by the form's filters, from the entry that follows `after`. */
export async function read(after) {
  const filter = Object.fromEntries([...new FormData(document.getElementById('callback-filter'))].filter(([, value]) => value !== ''));
  const query = new URLSearchParams({ ...filter, limit: 100, ...(after && { after }) });
  const { callbacks: rows, next, paused } = await ask('GET', `/v1/callbacks?${query}`);
  const again = () => read();
  show('callbacks', table(`Callbacks: ${filter.state}`, [
    ['Team', (row) => row.tenant],
    ['Type', (row) => row.type],
    ['Received', (row) => time(row.received)],
    ['Reason', (row) => result({ status: row.last_status, error: row.last_error })],
    ...(filter.state === 'queued' ? [['Next attempt', (row) => (row.paused ? `paused: ${row.paused}` : row.next_attempt ? time(row.next_attempt) : '–')]] : []),
    ['Delivery', (row) => el('code', { title: row.id }, row.id.replace(/^msg_/, '').slice(0, 8))],
    ['Attempts', (row) => [
      el('button', { type: 'button', onclick: () => carryOut(() => attempts(row), async () => {}) }, `Show ${number(row.attempts)}`),
    ], 'orders'],
    ['Orders', (row) => [
      button('replay', 'Replay', `The callback ${row.id} is sent to ${row.tenant ? `the team ${row.tenant}` : 'its owners'} once more.`, async () => {
        const done = await ask('POST', '/v1/callbacks/replay', { id: row.id });
        return `Replayed: ${number(done.replayed)}.`;
      }, again),
      filter.state === 'dead' && button('delete_dead_letter', 'Delete', `The callback ${row.id} is deleted. The team ${row.tenant} will never get it.`, async () => {
        await ask('DELETE', `/v1/callbacks/${row.id}`);
        return 'Deleted: 1.';
      }, again),
    ].filter((one) => one), 'orders'],
  ], rows, EMPTY[filter.state]), pager(after, next, (to) => carryOut(async () => { await read(to); return ''; }, async () => {})), el('div', { id: 'attempts' }));
  show('paused', table('Attempts at these endpoints have stopped', [
    ['Team', (pause) => pause.tenant],
    ['Type', (pause) => pause.type],
    ['Reason', (pause) => pause.reason],
    ['Since', (pause) => time(pause.since)],
    ['Next probe', (pause) => (pause.next_probe ? time(pause.next_probe) : 'none: resume it')],
    ['Orders', (pause) => [resume(pause, again)], 'orders'],
  ], paused, 'No endpoint is paused.'));
}

/** Shows each attempt at a callback. */
async function attempts(row) {
  const { attempts: made } = await ask('GET', `/v1/callbacks/${row.id}`);
  show('attempts', table(`Attempts at the callback ${row.id}`, [
    ['Time', (one) => time(one.time)],
    ['Result', result],
    ['Took', (one) => `${number(one.duration_ms)} ms`, 'number'],
  ], made, `No attempt was made at the callback ${row.id} yet.`));
  return '';
}

const resume = ({ tenant, type }, again) => button('resume_callbacks', 'Resume', `Callbacks of the type ${type} are sent to ${tenant} again.`, async () => {
  const done = await ask('POST', '/v1/callbacks/resume', { tenant, type });
  return `Resumed: ${number(done.resumed)} endpoints.`;
}, again);

const SENTENCES = {
  Pause: (team, types) => `No callback of ${types} is sent to ${team} until it is resumed. Callbacks wait meanwhile, and become dead letters when they are too old.`,
  Resume: (team, types) => `Callbacks of ${types} are sent to ${team} again.`,
};

async function endpoint({ tenant, type }, form) {
  const name = form.dataset.order;
  const body = type ? { tenant, type } : { tenant };
  // A test changes nothing, so it needs no confirmation.
  if (name === 'Test') return carryOut(() => test(body), () => read());
  return give(name, SENTENCES[name](`the team ${tenant}`, type ? `the type ${type}` : 'any type'), async () => {
    const done = await ask('POST', `/v1/callbacks/${name.toLowerCase()}`, body);
    return `${name}: done for ${number(done.paused ?? done.resumed)} endpoints.`;
  }, () => read());
}

async function test(body) {
  const answer = await ask('POST', '/v1/callbacks/test', body);
  const tests = answer.tests ?? [answer];
  show('tests', table(`Tests of ${body.tenant}`, [
    ['Type', (one) => one.type],
    ['Accepted', (one) => (one.delivered ? 'yes' : el('span', { class: 'bad' }, 'no'))],
    ['Result', result],
    ['Took', (one) => `${number(one.duration_ms)} ms`, 'number'],
  ], tests, 'The team has no callback URL. It sets one at /v1/callback/urls.'));
  return `Tested: ${number(tests.length)}. Accepted: ${number(tests.filter((one) => one.delivered).length)}.`;
}

async function replay({ tenant, since, until }) {
  const [from, to] = [new Date(since), until ? new Date(until) : undefined];
  const window = to ? `from ${from.toLocaleString()} until ${to.toLocaleString()}` : `since ${from.toLocaleString()}`;
  await give('Replay', `Everything that the team ${tenant} was sent, or could not be sent, ${window} is sent once more.`, async () => {
    const body = { tenant, since: from.toISOString(), ...(to && { until: to.toISOString() }) };
    const done = await ask('POST', '/v1/callbacks/replay', body);
    return `Replayed: ${number(done.replayed)}.`;
  }, () => read());
}

export function bind(run) {
  document.getElementById('callback-filter').addEventListener('change', () => run(() => read()));
  document.querySelectorAll('#endpoint button').forEach((one) => one.addEventListener('click', () => { one.form.dataset.order = one.value; }));
  onSubmit('endpoint', endpoint);
  onSubmit('replay', replay);
}
