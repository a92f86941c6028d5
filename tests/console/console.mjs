// The console and the team portal in Chromium: see tests/console/run.

import assert from 'node:assert/strict';
import { hadNoFault, isAccessible, launch, open, picture } from './browser.mjs';
import { thePortal } from './portal.mjs';
import { endAll, stage, traffic } from './stage.mjs';
import * as walk from './walk.mjs';

/** The whole of the console on the embedded engine, as each role. */
async function theConsole(browser, scene) {
  const refused = await open(browser, scene.base);
  await refused.goto(`${scene.base}/`);
  await isAccessible(refused, 'login');
  await refused.getByLabel('Token').fill('not-a-token-of-anybody');
  await refused.getByRole('button', { name: 'Log in' }).click();
  await refused.getByRole('alert').filter({ hasText: 'not known' }).waitFor();
  for (const role of ['admin', 'operator', 'viewer']) {
    const page = await open(browser, scene.base);
    await walk.logIn(page, scene.base, scene.tokens[role]);
    if (role === 'admin') await walk.alarmsAreShown(page);
    await walk.everyView(page, role);
    if (role === 'admin') {
      await walk.watchesLive(page, scene);
      await walk.erases(page, { names: ['gateway-1'] });
      await walk.makesRotatesAndRevokesKeys(page);
      await walk.suspendsAndResumes(page, scene);
      await walk.deletesADeadLetter(page, scene);
      await walk.isGuarded(page, scene.base);
    }
    if (role === 'operator') {
      await walk.purges(page);
      await walk.replaysPausesAndTests(page);
      await walk.settles(page, scene);
      await walk.readsNodesAndAudit(page, scene, ['gateway-1']);
    }
    await walk.logOut(page);
  }
  await inTheDark(browser, scene);
}

/** A phone in the dark, in another time zone: every view fits. */
async function inTheDark(browser, scene) {
  const phone = { viewport: { width: 375, height: 700 }, colorScheme: 'dark', timezoneId: 'Europe/Berlin' };
  const page = await open(browser, scene.base, phone);
  await walk.logIn(page, scene.base, scene.tokens.admin);
  for (const name of walk.views) {
    await walk.go(page, name);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 375), `${name}: nothing is wider than a phone`);
    await isAccessible(page, `${name}: dark, 375 px`);
    if (name === 'Overview') await picture(page, 'phone-dark');
  }
  await walk.saysTheZones(page, 'Europe/Berlin', 'Asia/Jakarta');
}

/** Two nodes over Redis: every view, and what only several nodes show. Their days begin elsewhere. */
async function onRedis(browser) {
  const names = ['gateway-a', 'gateway-b'];
  const scene = await stage({ names, zone: 'Pacific/Kiritimati', withRedis: true });
  try {
    await traffic(scene);
    const page = await open(browser, scene.base, { timezoneId: 'Europe/Berlin' });
    await walk.logIn(page, scene.base, scene.tokens.admin);
    await walk.waitsForADeadLetter(page);
    await walk.everyView(page, 'admin', { isChecked: false });
    await walk.purges(page);
    await walk.settles(page, scene);
    await walk.erases(page, { names, further: walk.PERSON });
    await walk.readsNodesAndAudit(page, scene, names);
    await walk.saysTheZones(page, 'Europe/Berlin', 'Pacific/Kiritimati');
    const other = await open(browser, scene.nodes[1].base);
    await walk.logIn(other, scene.nodes[1].base, scene.tokens.viewer);
    await walk.go(other, 'Nodes & audit');
    assert.match(await other.getByRole('region', { name: '2 nodes' }).innerText(), /gateway-a[\s\S]*up[\s\S]*gateway-b/);
  } finally {
    scene.end();
  }
}

async function main() {
  const scene = await stage();
  const browser = await launch();
  try {
    await traffic(scene);
    await theConsole(browser, scene);
    await thePortal(browser, scene);
    await onRedis(browser);
    await hadNoFault(browser);
    console.log(`the console: ${walk.views.length} views, 3 roles, the portal, all orders, two nodes on Redis: ok`);
  } finally {
    await browser.close();
    scene.end();
  }
}

try {
  await main();
} finally {
  endAll();
}
