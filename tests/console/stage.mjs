// What the walks act on: gateways in front of a simulated Iluma, with traffic behind them. Every field of a request that may name
// a person has a canary in it, which no page and no answer of the console may have.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const gateway = process.argv[2];
const TEAMS = ['lending', 'payments', 'onboarding'];
const children = [];

/** Texts that stand for persons in every request: words in any letter case, and the middle of every number. */
export const CANARIES = ['canary', '7263001', '7263002'];

export const secret = (length = 32) => randomBytes(length).toString('hex');

export async function until(what, question) {
  const end = Date.now() + 20_000;
  for (;;) {
    try { if (await question()) return; } catch { /* not yet */ }
    assert.ok(Date.now() < end, `in time: ${what}`);
    await new Promise((later) => setTimeout(later, 50));
  }
}

/** Ends every process of the stages. */
export function endAll() {
  for (const child of children) child.kill();
}

/** Starts a program. The promise of `says` has what `found` makes of its output. */
function start(program, args, { env = {}, cwd, found = () => true } = {}) {
  const child = spawn(program, args, { env: { ...process.env, ...env }, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let output = '';
  const says = new Promise((resolve, reject) => {
    const take = (data) => {
      if (output.length > 1e6) return;
      output += data;
      const answer = found(output);
      if (answer) resolve(answer);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('exit', (code) => reject(new Error(`${program} ended with ${code}: ${output.slice(-4000)}`)));
  });
  // A process that ends after it was used is no fault of its own.
  says.catch(() => {});
  return says;
}

/** The addresses of a gateway's listeners, from its log. */
function listening(output) {
  const line = output.split('\n').find((one) => one.includes('"listening"'));
  try { return line && JSON.parse(line).fields; } catch { return undefined; }
}

const simulated = (output) => output.match(/http:\/\/127\.0\.0\.1:\d+/)?.[0];

async function redisServer(folder) {
  const server = createServer();
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  const found = (output) => output.includes('Ready to accept connections');
  await start('redis-server', ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--dir', folder], { found });
  return `redis://127.0.0.1:${port}`;
}

function configuration({ name, iluma, zone, redis, keys, tokens }) {
  const team = (one) => `[tenants.${one}]
account = "live"
key_sha256 = ["${createHash('sha256').update(keys[one]).digest('hex')}"]
callback_hosts = ["127.0.0.1"]
callback_urls = { NAME_VALIDATOR_REQUEST = "http://127.0.0.1:9/" }
${one === 'lending' ? 'budget_per_month = 20000' : ''}
`;
  const role = (one) => `[admin.tokens.${one}]
token = { env = "TOKEN_${one.toUpperCase()}" }
role = "${one}"
`;
  return `[node]
name = "${name}"
[server]
listen = "127.0.0.1:0"
[callbacks]
listen = "127.0.0.1:0"
retry = ["0s"]
[admin]
listen = "127.0.0.1:0"
[upstream]
base_url = "${iluma}"
[quotas]
time_zone = "${zone}"
[state]
path = "${name}.db"
root_key = { env = "ROOT" }
encryption_keys = [{ id = "a", key = { env = "ENC" } }]
${redis ? '[state.redis]\nurl = { env = "REDIS" }' : ''}
[accounts.live]
api_key = { env = "ACCOUNT" }
callback_token = { env = "CALLBACK" }
[prices]
bank = 500
cft = 2500
ktp = 1000
phone = 750
ocr = 1500
${Object.keys(tokens).map(role).join('')}${TEAMS.map(team).join('')}`;
}

/** Gateways by these names, one without Redis or several with it, and their traffic. */
export async function stage({ names = ['gateway-1'], zone = 'Asia/Jakarta', withRedis = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'iluma-console-'));
  const keys = Object.fromEntries(TEAMS.map((team) => [team, `igw_${team}_${secret(16)}`]));
  const tokens = { viewer: secret(16), operator: secret(16), admin: secret(16) };
  const env = { ROOT: secret(), ENC: secret(), ACCOUNT: `iluma_live_${secret(8)}`, CALLBACK: secret(16) };
  for (const [role, token] of Object.entries(tokens)) env[`TOKEN_${role.toUpperCase()}`] = token;
  if (withRedis) env.REDIS = await redisServer(folder);
  const iluma = await start(gateway, ['simulate', '--listen', '127.0.0.1:0', '--answer-at-once'], { found: simulated });
  const nodes = await Promise.all(names.map(async (name) => {
    writeFileSync(join(folder, `${name}.toml`), configuration({ name, iluma, zone, redis: withRedis, keys, tokens }));
    const at = await start(gateway, ['run', '--config', `${name}.toml`], { env, cwd: folder, found: listening });
    return { base: `http://${at.admin}`, server: `http://${at.server}`, callbacks: `http://${at.callbacks}` };
  }));
  for (const { base } of nodes) await until('the gateway is ready', async () => (await fetch(`${base}/readyz`)).ok);
  const [{ base, server, callbacks }] = nodes;
  const scene = { base, portal: server, callbacks, nodes, keys, tokens, zone, callbackToken: env.CALLBACK };
  return { ...scene, ask: (team, number) => bank(scene, team, number), end: () => rmSync(folder, { recursive: true, force: true }) };
}

/** Sends a request of a team; `body` is JSON, or a form with files. */
export function send({ portal, keys }, team, method, path, body, headers = {}) {
  const isForm = body instanceof FormData;
  return fetch(`${portal}${path}`, {
    method,
    headers: { authorization: `Bearer ${keys[team]}`, ...(isForm || !body ? {} : { 'content-type': 'application/json' }), ...headers },
    body: isForm || !body ? body : JSON.stringify(body),
  });
}

function bank(scene, team, number) {
  const body = { bank_code: 'BCA', bank_account_number: number, given_name: 'Canary', surname: 'Canary', reference_id: `canary-${number}` };
  return send(scene, team, 'POST', '/v1.1/identity/bank_account_data_requests', body, { 'user-agent': 'canary', 'x-canary': 'canary' });
}

function form(fields, files) {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) made.append(name, value);
  for (const name of files) made.append(name, new Blob([Buffer.from('canary 7263001')], { type: 'image/png' }), 'canary-7263001.png');
  return made;
}

/** Traffic of the teams on every charged route, and callbacks that can not be delivered. */
export async function traffic(scene) {
  for (const number of ['7263001', '7263002', '7263001', '7263001']) for (const team of TEAMS) await (await scene.ask(team, number)).text();
  const [nik, person] = ['3172637263001263', { given_name: 'Canary', surname: 'Canary' }];
  const lost = { 'x-sim-fault': 'reset' };
  const card = { type: 'indonesia_ktp', reference_id: 'canary-card' };
  const selfie = { name: 'Canary', id_card_number: nik, birthdate: '31-12-1990', phone: '0812726300112', email: 'canary@example.com' };
  const company = { type: 'BUSINESS_REGISTRATION', country: 'ID', document_name: 'SK_MENKEH', reference_id: 'canary-company' };
  for (const [team, method, path, body, headers] of [
    ['onboarding', 'POST', '/v1/identity/cft/individual_watchlist', { ...person, reference_id: 'canary-cft' }],
    ['onboarding', 'POST', '/v1/identity/ktp_name/validations', { nik, name: 'Canary', reference_id: 'canary-ktp' }],
    ['lending', 'POST', '/v1/identity/ktp_name/validations', { nik, name: 'Canary' }],
    ['lending', 'POST', '/v1/identity/ktp_name/validations', { nik, name: 'Canary' }, lost],
    ['payments', 'POST', '/v2/identity/phone_numbers/validate', { phone_number: '0812726300112' }, lost],
    ['payments', 'POST', '/v2/identity/phone_numbers/validate', { phone_number: '0812726300112' }],
    ['payments', 'GET', '/v1/fraud/phone_numbers/0812726300112/age'],
    ['payments', 'POST', '/v0/identity/npwp_data_requests', { account_number: '726300172630017' }],
    ['lending', 'POST', '/v1/credit/drawdowns', { reference_id: 'canary-drawdown', amount: 100000 }],
    ['onboarding', 'POST', '/v2/identity/face_comparisons', form({}, ['image_one', 'image_two'])],
    ['onboarding', 'POST', '/v1/identity/id_card_verifications', form(selfie, ['selfie', 'ktp_image'])],
    ['onboarding', 'POST', '/v1/identity/id_card_images', form(card, ['image'])],
    ['onboarding', 'POST', '/v1/identity/document_ocr_requests', form(company, ['image'])],
    ['onboarding', 'POST', '/v1/identity/document_ocr_captures', { types: ['IDENTITY_CARD'], country: 'PH', reference_id: 'canary-capture' }],
    ['lending', 'GET', '/v1.1/identity/bank_account_data_requests/canary-7263001?canary=7263001'],
  ]) await (await send(scene, team, method, path, body, headers)).text();
  await callback(scene, 'lending', 'record-1');
  await callback(scene, 'lending', 'record-2');
}

/** A callback of Iluma's to a team, whose URL takes nothing. */
export async function callback({ callbacks, callbackToken }, team, id) {
  const person = { bank_account_number: '7263001', bank_account_holder_name: 'CANARY', result: { name: 'CANARY', nik: '3172637263001263' } };
  const answer = await fetch(`${callbacks}/callbacks/live/NAME_VALIDATOR_REQUEST`, {
    method: 'POST',
    headers: { 'x-callback-token': callbackToken, 'content-type': 'application/json' },
    body: JSON.stringify({ id, reference_id: `${team}:canary-7263001`, status: 'COMPLETED', ...person }),
  });
  assert.equal(answer.status, 200);
}

/** Asks the admin API as a role. */
export async function admin({ base, tokens }, role, method, path, body) {
  const headers = { authorization: `Bearer ${tokens[role]}`, ...(body && { 'content-type': 'application/json' }) };
  const answer = await fetch(`${base}${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert.equal(answer.status, 200, `${method} ${path}`);
  return answer.json();
}
