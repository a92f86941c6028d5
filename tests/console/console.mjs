// The console and the team portal in Chromium: see tests/console/run.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const [gateway, screenshots] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const secret = (length = 32) => randomBytes(length).toString('hex');
const children = [];

async function freePort() {
  const server = createServer();
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

function start(args, env, folder) {
  const child = spawn(gateway, args, { env: { ...process.env, ...env }, cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  child.log = '';
  child.stderr.on('data', (data) => { child.log += data; });
  children.push(child);
  return child;
}

async function until(what, question) {
  const end = Date.now() + 20_000;
  for (;;) {
    try { if (await question()) return; } catch { /* not yet */ }
    assert.ok(Date.now() < end, `in time: ${what}`);
    await new Promise((later) => setTimeout(later, 50));
  }
}

/** A gateway with two teams in front of a simulated Iluma, with some traffic behind it. */
async function stage() {
  const folder = mkdtempSync(join(tmpdir(), 'iluma-console-'));
  const [server, callbacks, admin, iluma] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const keys = { lending: `igw_lending_${secret(16)}`, payments: `igw_payments_${secret(16)}` };
  const tokens = { viewer: secret(16), operator: secret(16), admin: secret(16) };
  const env = { ROOT: secret(), ENC: secret(), ACCOUNT: `iluma_development_${secret(8)}`, CALLBACK: secret(16) };
  for (const [role, token] of Object.entries(tokens)) env[`TOKEN_${role.toUpperCase()}`] = token;
  const teams = Object.entries(keys).map(([team, key]) => `[tenants.${team}]
account = "dev"
key_sha256 = ["${createHash('sha256').update(key).digest('hex')}"]
callback_hosts = ["127.0.0.1"]
callback_urls = { NAME_VALIDATOR_REQUEST = "http://127.0.0.1:9/" }
`).join('');
  const roles = Object.keys(tokens).map((role) => `[admin.tokens.${role}]
token = { env = "TOKEN_${role.toUpperCase()}" }
role = "${role}"
`).join('');
  writeFileSync(join(folder, 'gateway.toml'), `[node]
name = "gateway-1"
[server]
listen = "127.0.0.1:${server}"
[callbacks]
listen = "127.0.0.1:${callbacks}"
retry = ["0s"]
[admin]
listen = "127.0.0.1:${admin}"
[upstream]
base_url = "http://127.0.0.1:${iluma}"
[state]
path = "state.db"
root_key = { env = "ROOT" }
encryption_keys = [{ id = "a", key = { env = "ENC" } }]
[accounts.dev]
api_key = { env = "ACCOUNT" }
callback_token = { env = "CALLBACK" }
[prices]
bank = 500
${roles}${teams}`);
  start(['simulate', '--listen', `127.0.0.1:${iluma}`, '--charge-development', '--answer-at-once'], {}, folder);
  const gatewayProcess = start(['run', '--config', 'gateway.toml'], env, folder);
  const base = `http://127.0.0.1:${admin}`;
  await until('the gateway is ready', async () => {
    assert.equal(gatewayProcess.exitCode, null, gatewayProcess.log);
    return (await fetch(`${base}/readyz`)).ok;
  });
  const ask = (team, number) => fetch(`http://127.0.0.1:${server}/v1.1/identity/bank_account_data_requests`, {
    method: 'POST',
    headers: { authorization: `Bearer ${keys[team]}`, 'content-type': 'application/json' },
    body: JSON.stringify({ bank_code: 'BCA', bank_account_number: number, reference_id: `canary-${number}` }),
  });
  for (const number of ['7263001', '7263002', '7263001']) for (const team of Object.keys(keys)) await (await ask(team, number)).text();
  const callback = await fetch(`http://127.0.0.1:${callbacks}/callbacks/dev/NAME_VALIDATOR_REQUEST`, {
    method: 'POST',
    headers: { 'x-callback-token': env.CALLBACK, 'content-type': 'application/json' },
    body: JSON.stringify({ id: 'record-1', reference_id: 'lending:canary-7263', status: 'COMPLETED', bank_account_number: '7263001' }),
  });
  assert.equal(callback.status, 200);
  return { base, portal: `http://127.0.0.1:${server}`, tokens, keys, folder, ask };
}

const faults = [];

/** A page that notes every console error, refused request of another host, and violation of the policy. */
async function open(browser, base, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on('console', (message) => {
    // A part that this gateway does not have answers 404, and the view says so.
    if (message.type() === 'error' && !/status of (401|404)/.test(message.text())) faults.push(`${page.url()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`${page.url()}: ${error}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith('data:')) faults.push(`asks elsewhere: ${request.url()}`);
  });
  return page;
}

async function logIn(page, base, token) {
  await page.goto(`${base}/`);
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor();
}

async function isAccessible(page, name) {
  const found = await page.evaluate(async (source) => {
    // The policy forbids inline scripts: the tool is evaluated by the browser's own debugger.
    (0, eval)(source);
    return window.axe.run(document, { resultTypes: ['violations'] });
  }, axe);
  const serious = found.violations.filter((violation) => ['serious', 'critical'].includes(violation.impact));
  assert.deepEqual(serious.map((violation) => [violation.id, violation.nodes[0].html]), [], name);
}

const views = ['Overview', 'Teams & keys', 'Cache', 'Callbacks', 'Erasure', 'Money', 'Nodes & audit'];
const orders = { operator: ['Purge', 'Replay', 'Pause', 'Resume', 'Test'], admin: ['Create key', 'Erase', 'Suspend'] };

async function everyView(page, role) {
  const seen = new Set();
  for (const name of views) {
    await page.getByRole('navigation').getByRole('link', { name, exact: true }).click();
    await page.getByRole('heading', { name, level: 1 }).waitFor();
    await page.waitForFunction(() => ![...document.querySelectorAll('.empty')].some((one) => one.textContent === 'Loading…'));
    assert.equal(await page.getByRole('alert').innerText(), '', `${role}: ${name}`);
    for (const button of await page.getByRole('main').getByRole('button').allInnerTexts()) seen.add(button);
    const text = await page.content();
    assert.ok(!text.includes('7263001') && !text.includes('canary'), `nothing personal in ${name}`);
    if (role === 'admin' && screenshots) {
      await page.screenshot({ path: join(screenshots, `${name.toLowerCase().replace(/[^a-z]+/g, '-')}.png`), fullPage: true });
    }
    if (role === 'admin') await isAccessible(page, name);
  }
  const may = { viewer: [], operator: orders.operator, admin: [...orders.operator, ...orders.admin] }[role];
  for (const order of [...orders.operator, ...orders.admin]) {
    assert.equal(seen.has(order), may.includes(order), `${role} ${order}: ${[...seen].join(', ')}`);
  }
}

async function confirm(page, order) {
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('button', { name: order, exact: true }).click();
}

async function purges(page) {
  await page.getByRole('link', { name: 'Cache', exact: true }).click();
  await page.getByLabel('Answers of').selectOption('all');
  await page.getByRole('main').getByRole('button', { name: 'Purge' }).click();
  await confirm(page, 'Purge');
  await page.getByRole('status').filter({ hasText: 'Purged on every node' }).waitFor();
}

async function replays(page) {
  await page.getByRole('link', { name: 'Callbacks', exact: true }).click();
  const row = page.getByRole('row').filter({ hasText: 'lending' }).first();
  await until('a dead letter', async () => {
    if (await row.count() > 0) return true;
    await page.reload();
    return false;
  });
  await row.getByRole('button', { name: 'Replay' }).click();
  await confirm(page, 'Replay');
  await page.getByRole('status').filter({ hasText: 'Replayed: 1' }).waitFor();
}

async function erases(page) {
  await page.getByRole('link', { name: 'Erasure', exact: true }).click();
  await page.getByLabel('Account number').fill('7263002');
  await page.getByLabel('Bank code').fill('BCA');
  await page.getByRole('main').getByRole('button', { name: 'Erase' }).click();
  await confirm(page, 'Erase');
  await page.getByRole('heading', { name: 'Receipt' }).waitFor();
}

async function makesAndRevokesKeys(page) {
  await page.getByRole('link', { name: 'Teams & keys' }).click();
  await page.getByLabel('Note').fill('made by the test');
  await page.getByRole('button', { name: 'Create key' }).click();
  await confirm(page, 'Create key');
  await page.getByText('Hand this key to the team now').waitFor();
  const row = page.getByRole('row').filter({ hasText: 'made by the test' });
  await row.getByRole('button', { name: 'Revoke' }).click();
  await confirm(page, 'Revoke');
  await page.getByRole('status').filter({ hasText: 'is revoked' }).waitFor();
}

async function suspendsAndResumes(page, { ask }) {
  await page.getByRole('link', { name: 'Teams & keys' }).click();
  const row = page.getByRole('region', { name: 'Teams', exact: true }).getByRole('row').filter({ hasText: 'payments' });
  await row.getByRole('button', { name: 'Suspend' }).click();
  await confirm(page, 'Suspend');
  await row.getByRole('button', { name: 'Resume' }).waitFor();
  assert.equal((await ask('payments', '1')).status, 403);
  await row.getByRole('button', { name: 'Resume' }).click();
  await confirm(page, 'Resume');
  await row.getByRole('button', { name: 'Suspend' }).waitFor();
  assert.notEqual((await ask('payments', '1')).status, 403);
}

/** What another page of the same host could send: the cookie alone gives no order, and without a session there is no page. */
async function isGuarded(page, base) {
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

/** A key of the team `lending` that is not the configuration's, so that it can be rotated. */
async function newKey({ base, tokens }) {
  const made = await fetch(`${base}/v1/tenants/lending/keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${tokens.admin}`, 'content-type': 'application/json' },
    body: '{"note":"of the portal"}',
  });
  return (await made.json()).key;
}

/** A place that takes every delivery, for the portal's test. */
async function receiver() {
  const server = createHttpServer((request, response) => { request.resume(); request.on('end', () => response.end()); });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return server;
}

async function portalLogIn(page, base, key) {
  await page.goto(`${base}/_gateway/`);
  await page.getByLabel('Key').fill(key);
  await page.getByRole('button', { name: 'Log in' }).click();
}

/** The whole of the portal: every section, every order. */
async function thePortal(browser, scene) {
  const base = scene.portal;
  const key = await newKey(scene);
  const page = await open(browser, base);
  await page.goto(`${base}/_gateway/`);
  await isAccessible(page, 'portal: login');
  await portalLogIn(page, base, 'not-a-key-of-any-team');
  await page.getByRole('alert').filter({ hasText: 'invalid' }).waitFor();
  await portalLogIn(page, base, key);
  for (const name of ['Usage', 'Limits', 'Callbacks', 'Secret', 'Examples']) await page.getByRole('heading', { name, exact: true }).waitFor();
  const loaded = () => page.waitForFunction(() => ![...document.querySelectorAll('.empty')].some((one) => one.textContent === 'Loading…'));
  await loaded();
  assert.equal(await page.getByRole('alert').innerText(), '');
  assert.match(await page.getByRole('region', { name: /^By route/ }).innerText(), /bank/);
  await isAccessible(page, 'portal');
  const text = await page.content();
  assert.ok(!text.includes('7263001') && !text.includes('canary') && !text.includes(key), 'nothing personal and no key in the portal');
  if (screenshots) await page.screenshot({ path: join(screenshots, 'portal.png'), fullPage: true });

  await page.getByRole('button', { name: 'Reveal' }).click();
  await page.locator('#secret-text pre').first().waitFor();
  const says = (words) => page.getByRole('status').filter({ hasText: words }).waitFor();
  const endpoint = page.getByRole('region', { name: 'Endpoints', exact: true }).getByRole('row').filter({ hasText: 'NAME_VALIDATOR_REQUEST' });
  await endpoint.getByRole('button', { name: 'Send test' }).click();
  await page.getByRole('alert').filter({ hasText: 'was not accepted' }).waitFor();
  const there = await receiver();
  const set = await fetch(`${base}/v1/callback/urls`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ type: 'NAME_VALIDATOR_REQUEST', url: `http://127.0.0.1:${there.address().port}/` }),
  });
  assert.equal(set.status, 200, await set.text());
  await endpoint.getByRole('button', { name: 'Send test' }).click();
  await says('was accepted with status 200');
  for (const order of ['Pause', 'Resume']) {
    await endpoint.getByRole('button', { name: order }).click();
    await confirm(page, order);
    await says(`${order}: done`);
    await page.getByRole('region', { name: 'Paused endpoints' }).waitFor({ state: order === 'Pause' ? 'visible' : 'detached' });
  }
  const dead = page.getByRole('region', { name: 'Callbacks: dead' }).getByRole('row').filter({ hasText: 'NAME_VALIDATOR_REQUEST' }).first();
  if (await dead.count() > 0) {
    await dead.getByRole('button', { name: 'Replay' }).click();
    await confirm(page, 'Replay');
    await says('Replayed: 1');
  }
  await page.getByLabel('State').selectOption('delivered');
  await page.getByRole('region', { name: 'Callbacks: delivered' }).waitFor();

  await page.getByRole('main').getByRole('button', { name: 'Rotate' }).click();
  await confirm(page, 'Rotate');
  await says('has a new key');
  const made = await page.locator('#new-key pre').innerText();
  assert.ok(made.startsWith('igw_lending_') && made !== key);

  const example = page.locator('details').filter({ hasText: 'bank_account_data_requests' }).first();
  await example.locator('summary').click();
  assert.match(await example.innerText(), /curl -u "\$ILUMA_GATEWAY_KEY:" -X POST/);
  await isAccessible(page, 'portal: after all orders');
  const [cookie] = await page.context().cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === 'Strict' && cookie.path === '/_gateway/', JSON.stringify(cookie));
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('Key').waitFor();

  const dark = await open(browser, base, { viewport: { width: 375, height: 700 }, colorScheme: 'dark' });
  await portalLogIn(dark, base, made);
  await dark.getByRole('heading', { name: 'Examples', exact: true }).waitFor();
  assert.ok(await dark.evaluate(() => document.documentElement.scrollWidth <= 375), 'nothing is wider than a phone');
  await isAccessible(dark, 'portal: dark, 375 px');
  if (screenshots) await dark.screenshot({ path: join(screenshots, 'portal-phone-dark.png'), fullPage: true });
  there.close();
}

async function main() {
  if (screenshots) mkdirSync(screenshots, { recursive: true });
  const scene = await stage();
  const profile = mkdtempSync(join(tmpdir(), 'iluma-chromium-'));
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const refused = await open(browser, scene.base);
    await refused.goto(`${scene.base}/`);
    await isAccessible(refused, 'login');
    await refused.getByLabel('Token').fill('not-a-token-of-anybody');
    await refused.getByRole('button', { name: 'Log in' }).click();
    await refused.getByRole('alert').filter({ hasText: 'not known' }).waitFor();
    for (const role of ['viewer', 'operator', 'admin']) {
      const page = await open(browser, scene.base);
      await logIn(page, scene.base, scene.tokens[role]);
      await everyView(page, role);
      if (role === 'operator') {
        await purges(page);
        await replays(page);
      }
      if (role === 'admin') {
        await erases(page);
        await makesAndRevokesKeys(page);
        await suspendsAndResumes(page, scene);
        await isGuarded(page, scene.base);
      }
      await page.getByRole('button', { name: 'Log out' }).click();
      await page.getByLabel('Token').waitFor();
    }
    const dark = await open(browser, scene.base, { viewport: { width: 375, height: 700 }, colorScheme: 'dark' });
    await logIn(dark, scene.base, scene.tokens.viewer);
    assert.ok(await dark.evaluate(() => document.documentElement.scrollWidth <= 375), 'nothing is wider than a phone');
    await isAccessible(dark, 'dark, 375 px');
    if (screenshots) await dark.screenshot({ path: join(screenshots, 'phone-dark.png'), fullPage: true });
    await thePortal(browser, scene);
    assert.deepEqual(faults, [], 'no console error, no violation, no outside request');
    console.log(`the console: ${views.length} views, 3 roles, the portal, all orders: ok`);
  } finally {
    await browser.close();
    rmSync(profile, { recursive: true, force: true });
    rmSync(scene.folder, { recursive: true, force: true });
  }
}

try {
  await main();
} finally {
  for (const child of children) child.kill();
}
