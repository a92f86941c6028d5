// The walk through the console: every view as a role sees it, and every order.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { confirm, hasNoCanary, isAccessible, isFilled, picture } from './browser.mjs';
import { admin, callback, secret, send, until } from './stage.mjs';

export const views = ['Overview', 'Teams & keys', 'Live', 'Cache', 'Callbacks', 'Erasure', 'Money', 'Nodes & audit'];
const orders = { operator: ['Purge', 'Replay', 'Pause', 'Resume', 'Test', 'Settle'], admin: ['Create key', 'Erase', 'Suspend', 'Delete'] };
const main = (page) => page.getByRole('main');
const region = (page, name) => page.getByRole('region', { name });
const says = (page, words) => page.locator('#outcome').filter({ hasText: words }).waitFor();

export async function logIn(page, base, token) {
  await page.goto(`${base}/`);
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor();
}

export async function logOut(page) {
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('Token').waitFor();
}

export async function go(page, name) {
  await page.getByRole('navigation').getByRole('link', { name, exact: true }).click();
  await page.getByRole('heading', { name, level: 1 }).waitFor();
  await isFilled(page, name);
}

/** Every view of a role: filled, nothing personal, accessible if `isChecked`, and the orders that the role may give, but no other. */
export async function everyView(page, role, { isChecked = true } = {}) {
  const seen = new Set();
  let reasons = 0;
  for (const name of views) {
    await go(page, name);
    for (const button of await main(page).getByRole('button').allInnerTexts()) seen.add(button);
    reasons += await main(page).getByText('; your token has the role').count();
    if (isChecked && role !== 'operator') await isAccessible(page, `${role}: ${name}`);
    if (role === 'admin' && ['Overview', 'Teams & keys', 'Cache', 'Callbacks', 'Money'].includes(name)) {
      await picture(page, name.toLowerCase().replace(/[^a-z]+/g, '-'));
    }
  }
  const may = { viewer: [], operator: orders.operator, admin: [...orders.operator, ...orders.admin] }[role];
  for (const order of [...orders.operator, ...orders.admin]) {
    assert.equal(seen.has(order), may.includes(order), `${role} ${order}: ${[...seen].join(', ')}`);
  }
  assert.equal(reasons, { viewer: 6, operator: 2, admin: 0 }[role], `${role}: a form that is missing says which role it needs`);
}

export async function alarmsAreShown(page) {
  await go(page, 'Overview');
  const alarm = page.getByRole('listitem').filter({ hasText: 'Dead letters' });
  await until('the alarm of a dead letter', async () => {
    if (await alarm.count() > 0) return true;
    await page.reload();
    return false;
  });
  assert.match(await alarm.innerText(), /warning[\s\S]*lending: [\s\S]*on gateway-1[\s\S]*mend its endpoint/);
  await alarm.getByRole('link', { name: 'Callbacks' }).click();
  await page.getByRole('heading', { name: 'Callbacks', level: 1 }).waitFor();
}

/** Lines come as they are written, by filter; a pause holds them back; the page keeps a bounded number. */
export async function watchesLive(page, scene) {
  const look = (team) => send(scene, team, 'GET', '/_gateway/usage').then((answer) => answer.text());
  const state = (words) => page.locator('#live-state').filter({ hasText: words }).waitFor();
  const rows = region(page, 'Requests').locator('tbody tr');
  await go(page, 'Live');
  await state('Connected');
  await scene.ask('lending', '7263001');
  await scene.ask('payments', '7263002');
  await scene.ask('onboarding', '7263088');
  await send(scene, 'lending', 'GET', '/v1.1/identity/bank_account_data_requests/canary-7263001');
  await send(scene, 'payments', 'GET', '/canary/7263001');
  await rows.filter({ hasText: 'lending' }).filter({ hasText: 'bank' }).first().waitFor();
  await rows.filter({ hasText: 'forbidden' }).or(rows.filter({ hasText: 'other' })).first().waitFor();
  hasNoCanary(await page.content(), 'Live');
  await isAccessible(page, 'Live with lines');
  await picture(page, 'live');

  await page.getByLabel('Team').selectOption('payments');
  await state('Connected');
  await look('lending');
  await look('payments');
  await rows.first().waitFor();
  assert.deepEqual([await rows.count(), /payments/.test(await rows.first().innerText())], [1, true]);
  await page.getByRole('button', { name: 'Pause the list' }).click();
  await state('Paused. 0 new lines wait.');
  await look('payments');
  await state('Paused. 1 new lines wait.');
  assert.equal(await rows.count(), 1);
  await page.getByRole('button', { name: 'Resume the list' }).click();
  await state('2 lines');
  assert.equal(await rows.count(), 2);
  for (let turn = 0; turn < 21; turn += 1) await Promise.all(Array.from({ length: 10 }, () => look('payments')));
  await state('212 lines');
  assert.equal(await rows.count(), 200, 'the page keeps a bounded number of lines');
  await page.getByRole('button', { name: 'Clear' }).click();
  await state('Connected. No request');
  await page.getByLabel('Team').selectOption('');
  await page.getByLabel('Status').selectOption('4xx');
  await state('Connected');
  await look('payments');
  await send(scene, 'payments', 'GET', '/v1/callback/nothing');
  await rows.first().waitFor();
  assert.match(await rows.first().innerText(), /40[34]/);
}

/** A purge is counted before it is confirmed, and removes what was counted. */
export async function purges(page) {
  await go(page, 'Cache');
  await page.getByLabel('Answers of').selectOption('tenant');
  assert.ok(await page.locator('#purge-team').isVisible());
  await page.getByLabel('Answers of').selectOption('all');
  assert.ok(!(await page.locator('#purge-team').isVisible()), 'a team is chosen only for its own answers');
  await main(page).getByRole('button', { name: 'Purge' }).click();
  const sentence = await page.locator('#confirm-text').filter({ hasText: 'on every node' }).innerText();
  const [, counted] = sentence.match(/(\d+) in memory/);
  assert.ok(Number(counted) > 0, sentence);
  await picture(page, 'purge');
  await confirm(page, 'Purge', 'all stored answers');
  await says(page, `Purged on every node: ${counted} in memory`);
}

const deadLetter = (page) => region(page, 'Callbacks: dead').getByRole('row').filter({ hasText: 'lending' }).first();

export async function waitsForADeadLetter(page) {
  await go(page, 'Callbacks');
  await until('a dead letter', async () => {
    if (await deadLetter(page).count() > 0) return true;
    await page.reload();
    await isFilled(page, 'Callbacks');
    return false;
  });
}

export async function replaysPausesAndTests(page) {
  await waitsForADeadLetter(page);
  await deadLetter(page).getByRole('button', { name: 'Show' }).click();
  await region(page, /^Attempts at the callback/).getByText('refused').first().waitFor();
  await deadLetter(page).getByRole('button', { name: 'Replay' }).click();
  await confirm(page, 'Replay', 'to the team lending once more');
  await says(page, 'Replayed: 1');
  const endpoint = page.locator('#endpoint');
  await endpoint.getByLabel('Team').selectOption('payments');
  await endpoint.getByLabel('Type').selectOption('NAME_VALIDATOR_REQUEST');
  await endpoint.getByRole('button', { name: 'Pause' }).click();
  await confirm(page, 'Pause', 'until it is resumed');
  await says(page, 'Pause: done for 1 endpoints');
  const paused = region(page, 'Attempts at these endpoints').getByRole('row').filter({ hasText: 'payments' });
  assert.match(await paused.innerText(), /operator/);
  await paused.getByRole('button', { name: 'Resume' }).click();
  await confirm(page, 'Resume', 'sent to payments again');
  await says(page, 'Resumed: 1');
  await page.getByText('No endpoint is paused').waitFor();
  await endpoint.getByRole('button', { name: 'Test' }).click();
  await says(page, 'Tested: 1. Accepted: 0.');
  assert.match(await region(page, 'Tests of payments').innerText(), /refused/);
  await page.locator('#replay').getByLabel('Team').selectOption('lending');
  await page.getByLabel('Since').fill('2026-01-01T00:00');
  await page.locator('#replay').getByRole('button', { name: 'Replay' }).click();
  await confirm(page, 'Replay', 'Everything that the team lending was sent');
  await says(page, 'Replayed: ');
}

export async function deletesADeadLetter(page, scene) {
  await callback(scene, 'lending', `record-${secret(4)}`);
  await waitsForADeadLetter(page);
  await deadLetter(page).getByRole('button', { name: 'Delete' }).click();
  await confirm(page, 'Delete', 'will never get it');
  await says(page, 'Deleted: 1');
}

/** What identifies a person beside an account, by the labels of the form. */
export const PERSON = {
  'Given name': 'Canary',
  Surname: 'Canary',
  'Whole name': 'Canary Canary',
  NIK: '3172637263001263',
  NPWP: '726300172630017',
  'Passport number': 'CANARY',
  TRN: 'canary',
  'Phone number': '0812726300112',
  'E-mail address': 'canary@example.com',
};

/** An erasure asks once, shows each node's part, is in the history, and can be exported without the person. */
export async function erases(page, { names, further = {} }) {
  await go(page, 'Erasure');
  const person = { 'Account number': '7263002', 'Bank code': 'BCA', ...further };
  for (const [label, value] of Object.entries(person)) await page.getByLabel(label, { exact: true }).fill(value);
  await main(page).getByRole('button', { name: 'Erase' }).click();
  await confirm(page, 'Erase', `on every node (${names.length}: ${names.join(', ')})`);
  await page.getByRole('heading', { name: 'Receipt' }).waitFor();
  await says(page, 'Erased on every node');
  for (const name of names) assert.match(await region(page, 'Nodes').getByRole('row').filter({ hasText: name }).innerText(), /done/);
  for (const label of Object.keys(person)) assert.equal(await page.getByLabel(label, { exact: true }).inputValue(), '', `the form forgets: ${label}`);
  const id = await page.locator('#receipt code').innerText();
  await region(page, 'Erasures').getByRole('row').filter({ hasText: id }).filter({ hasText: `${names.length} of ${names.length} done` }).waitFor();
  hasNoCanary(await page.content(), 'Erasure');
  await isAccessible(page, 'Erasure with a receipt');
  await picture(page, 'erasure', { isWhole: true });
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Export for restore' }).click()]);
  assert.equal(download.suggestedFilename(), 'erasures.jsonl');
  const text = readFileSync(await download.path(), 'utf8');
  hasNoCanary(text, 'the export');
  const receipts = text.trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(receipts.filter((one) => one.id === id).map((one) => one.persons.length > 0), [true], 'a restore needs the keyed hashes');
}

/** Books by team, route and day, as CSV; budgets; a call whose outcome is not known is settled by hand. */
export async function settles(page, { zone }) {
  await go(page, 'Money');
  const today = new Intl.DateTimeFormat('sv-SE', { timeZone: zone }).format(new Date());
  assert.equal(await page.getByLabel('To', { exact: true }).inputValue(), today, 'days are those of the configured zone');
  await page.getByLabel('Sum by').selectOption('day, team and route');
  await page.getByRole('button', { name: 'Show' }).click();
  await region(page, /by day, team and route/).getByRole('row').filter({ hasText: today }).filter({ hasText: 'ktp' }).first().waitFor();
  assert.match(await region(page, /teams have no budget/).innerText(), /lending/);
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download CSV' }).click()]);
  const csv = readFileSync(await download.path(), 'utf8');
  assert.match(csv, /^day,tenant,route/);
  hasNoCanary(csv, 'the CSV');

  const rows = region(page, /whose outcome is unknown/).locator('tbody tr');
  const before = await rows.count();
  const lost = rows.filter({ hasText: 'lost' });
  assert.ok(await lost.count() > 0, 'there is a call whose answer was lost');
  await page.locator('#settle-outcome').selectOption('billable');
  await main(page).getByRole('button', { name: 'Settle' }).click();
  await page.getByRole('alert').filter({ hasText: 'Choose at least one call' }).waitFor();
  const call = await lost.first().locator('code').innerText();
  await lost.first().getByRole('checkbox').check();
  await page.getByLabel('Note').fill('bill 11');
  await main(page).getByRole('button', { name: 'Settle' }).click();
  await confirm(page, 'Settle', /^1 call is settled as billable.* can't be taken back/);
  await says(page, 'Settled: 1');
  // The outcome is told before the list is read again.
  await rows.filter({ has: page.getByText(call, { exact: true }) }).waitFor({ state: 'detached' });
  assert.equal(await rows.count(), before - 1);
}

export async function makesRotatesAndRevokesKeys(page) {
  await go(page, 'Teams & keys');
  await page.getByLabel('Find a team').fill('pay');
  assert.equal(await region(page, 'Teams').locator('tbody tr').count(), 1);
  await page.getByLabel('Note').fill('made by the test');
  await page.locator('#create-key').getByLabel('Team').selectOption('payments');
  await page.getByRole('button', { name: 'Create key' }).click();
  await confirm(page, 'Create key', 'The team payments gets one more key, which never ends');
  await page.getByText('Hand this key to the team now').waitFor();
  const row = region(page, 'Keys of payments').getByRole('row').filter({ hasText: 'made by the test' });
  await row.getByRole('button', { name: 'Rotate' }).click();
  await confirm(page, 'Rotate', '24 more hours');
  await says(page, 'has a successor');
  await row.first().getByRole('button', { name: 'Revoke' }).click();
  await confirm(page, 'Revoke', 'stops working at once');
  await says(page, 'is revoked');
}

export async function suspendsAndResumes(page, { ask }) {
  await go(page, 'Teams & keys');
  const row = region(page, 'Teams').getByRole('row').filter({ hasText: 'payments' });
  await row.getByRole('button', { name: 'Suspend' }).click();
  await confirm(page, 'Suspend', 'Every request of the team payments');
  await row.getByRole('button', { name: 'Resume' }).waitFor();
  assert.equal((await ask('payments', '1')).status, 403);
  await row.getByRole('button', { name: 'Resume' }).click();
  await confirm(page, 'Resume', 'are served again');
  await row.getByRole('button', { name: 'Suspend' }).waitFor();
  assert.notEqual((await ask('payments', '1')).status, 403);
}

/** Each node with its state; the audit log by pages, the newest first, and by days. */
export async function readsNodesAndAudit(page, scene, names) {
  for (let turn = 0; turn < 6; turn += 1) {
    await Promise.all(Array.from({ length: 10 }, () => admin(scene, 'operator', 'POST', '/v1/cache/purge', { tenant: 'onboarding' })));
  }
  await go(page, 'Nodes & audit');
  for (const name of names) assert.match(await region(page, /nodes?$/).getByRole('row').filter({ hasText: name }).first().innerText(), /live/);
  const rows = region(page, 'Orders, the newest first').locator('tbody tr');
  assert.equal(await rows.count(), 50);
  assert.match(await rows.first().innerText(), /Purge\s+onboarding\s+done[\s\S]*operator \(operator\)/);
  await page.getByRole('button', { name: 'Next page' }).click();
  await page.getByRole('button', { name: 'First page' }).waitFor();
  assert.ok(await rows.filter({ hasText: 'Erase' }).count() > 0, 'older orders are on the next page');
  await picture(page, 'nodes-audit');
  await isAccessible(page, 'the second page of the audit log');
  await page.getByLabel('To', { exact: true }).fill('2020-01-01');
  await page.getByRole('button', { name: 'Show' }).click();
  await page.getByText('No order was given on these days').waitFor();
}

/** The page says in which zones its times and days are. */
export async function saysTheZones(page, own, zone) {
  await go(page, 'Nodes & audit');
  assert.match(await page.locator('#zones').innerText(), new RegExp(`those of ${own}; .*shows it in ${zone}`));
  assert.match(await page.locator('time').first().getAttribute('title'), new RegExp(`^${zone}: `));
}

/** What another page of the same host could send: the cookie alone gives no order, and without a session there is no page. */
export async function isGuarded(page, base) {
  const cookies = (await page.context().cookies()).map(({ name, value }) => `${name}=${value}`).join('; ');
  const order = (headers) => fetch(`${base}/v1/cache/purge`, { method: 'POST', headers: { cookie: cookies, ...headers }, body: '{"all":true}' });
  assert.equal((await order({})).status, 401);
  assert.equal((await order({ origin: 'http://127.0.0.1:1' })).status, 401);
  assert.equal((await order({ 'x-csrf-token': secret() })).status, 401);
  const page_ = await fetch(`${base}/`, { headers: { cookie: cookies } });
  assert.equal(page_.headers.get('cache-control'), 'no-store');
  assert.ok(!page_.headers.get('content-security-policy').includes('unsafe-inline'));
  for (const [cookie] of [await page.context().cookies()]) {
    assert.ok(cookie.httpOnly && cookie.sameSite === 'Strict', JSON.stringify(cookie));
  }
}
