// Chromium as the walks use it: pages that note every fault, axe-core, canaries, screenshots.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { CANARIES } from './stage.mjs';

const screenshots = process.argv[3];
const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const faults = [];
const answers = [];
const taken = new Set();

export function launch() {
  if (screenshots) mkdirSync(screenshots, { recursive: true });
  return chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
}

/** Fails if a text has a canary in it. */
export function hasNoCanary(text, where) {
  const found = CANARIES.filter((canary) => text.toLowerCase().includes(canary));
  assert.deepEqual(found, [], `something personal in ${where}`);
}

/** Notes an answer of the gateway with a canary in it. A stream does not end; its lines are read from the page. */
function watch(response) {
  if (response.headers()['content-type']?.startsWith('text/event-stream')) return;
  const read = async () => {
    let body;
    // A page that is left takes its answers with it.
    try { body = await response.text(); } catch { return; }
    try { hasNoCanary(body, `the answer of ${response.url()}`); } catch (fault) { faults.push(String(fault)); }
  };
  answers.push(read());
}

/** A page that notes every console error, request of another host, violation of the policy, and answer with a canary. */
export async function open(browser, base, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'en-GB', timezoneId: 'Asia/Jakarta', ...options });
  const page = await context.newPage();
  page.on('console', (message) => {
    // A refusal that the walk asks for is an error to the browser's console.
    if (message.type() === 'error' && !/status of (401|404)/.test(message.text())) faults.push(`${page.url()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`${page.url()}: ${error}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(base) && !/^(data|blob):/.test(request.url())) faults.push(`asks elsewhere: ${request.url()}`);
  });
  page.on('response', watch);
  return page;
}

/** Closes the browser, and fails if a page had a fault. */
export async function hadNoFault(browser) {
  const read = Promise.all(answers);
  // The body of an answer whose page was left may never come: closing the browser ends the wait for it.
  await Promise.race([read, new Promise((later) => setTimeout(later, 5000).unref())]);
  await browser.close();
  await read;
  assert.deepEqual(faults, [], 'no console error, no violation, no outside request, nothing personal');
}

export async function isAccessible(page, name) {
  const found = await page.evaluate(async (source) => {
    // The policy forbids inline scripts: the tool is evaluated by the browser's own debugger.
    (0, eval)(source);
    return window.axe.run(document, { resultTypes: ['violations'] });
  }, axe);
  const serious = found.violations.filter((violation) => ['serious', 'critical'].includes(violation.impact));
  assert.deepEqual(serious.map((violation) => [violation.id, violation.nodes[0].html]), [], name);
}

/** Waits until every part of a page is filled, and looks for canaries and refusals. */
export async function isFilled(page, name) {
  await page.waitForFunction(() => ![...document.querySelectorAll('.empty')].some((one) => one.textContent === 'Loading…'));
  assert.equal(await page.getByRole('alert').innerText(), '', name);
  hasNoCanary(await page.content(), name);
}

/** Takes a screenshot, of each name one: a PNG to look at, and a small WebP for the documents. */
export async function picture(page, name, { isWhole = false } = {}) {
  if (!screenshots || taken.has(name)) return;
  taken.add(name);
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
  const devtools = await page.context().newCDPSession(page);
  const { cssContentSize: size } = await devtools.send('Page.getLayoutMetrics');
  const clip = { x: 0, y: 0, width: size.width, height: isWhole ? size.height : Math.min(size.height, 960), scale: 0.75 };
  const { data } = await devtools.send('Page.captureScreenshot', { format: 'webp', quality: 70, captureBeyondViewport: true, clip });
  writeFileSync(join(screenshots, `${name}.webp`), Buffer.from(data, 'base64'));
  await devtools.detach();
}

/** Presses the button of an order in its dialog, whose sentence has these words. */
export async function confirm(page, order, words = /./) {
  const dialog = page.getByRole('dialog');
  await dialog.filter({ hasText: words }).waitFor();
  await dialog.getByRole('button', { name: order, exact: true }).click();
}
