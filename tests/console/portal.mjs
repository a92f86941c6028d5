// The walk through the portal of a team: every section, every order.

import assert from 'node:assert/strict';
import { createServer as createHttpServer } from 'node:http';
import { confirm, hasNoCanary, isAccessible, isFilled, open, picture } from './browser.mjs';
import { admin } from './stage.mjs';

/** A key of the team `lending` that is not the configuration's, so that it can be rotated. */
const newKey = async (scene) => (await admin(scene, 'admin', 'POST', '/v1/tenants/lending/keys', { note: 'of the portal' })).key;

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
export async function thePortal(browser, scene) {
  const base = scene.portal;
  const key = await newKey(scene);
  const page = await open(browser, base);
  await page.goto(`${base}/_gateway/`);
  await isAccessible(page, 'portal: login');
  await portalLogIn(page, base, 'not-a-key-of-any-team');
  await page.getByRole('alert').filter({ hasText: 'invalid' }).waitFor();
  await portalLogIn(page, base, key);
  for (const name of ['Usage', 'Limits', 'Callbacks', 'Secret', 'Examples']) await page.getByRole('heading', { name, exact: true }).waitFor();
  await isFilled(page, 'portal');
  assert.match(await page.getByRole('region', { name: /^By route/ }).innerText(), /bank/);
  await isAccessible(page, 'portal');
  assert.ok(!(await page.content()).includes(key), 'no key in the portal');
  await picture(page, 'portal');

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
  hasNoCanary(await dark.content(), 'portal');
  await picture(dark, 'portal-phone-dark');
  there.close();
}
