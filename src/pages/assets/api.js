// The gateway's API, asked with the session of this page. A fault is an Error with the gateway's own sentence.

const token = document.querySelector('meta[name="csrf-token"]').content;

/** Asks the API. Returns the answer's JSON, or throws. */
export async function ask(method, path, body) {
  const headers = { accept: 'application/json' };
  if (method !== 'GET') headers['x-csrf-token'] = token;
  if (body !== undefined) headers['content-type'] = 'application/json';
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store' });
  if (answer.status === 401) location.reload();
  const text = await answer.text();
  let value = null;
  try { value = text === '' ? null : JSON.parse(text); } catch { value = null; }
  if (answer.ok) return value;
  // An order that could not be carried out everywhere answers with what is left.
  if (value?.left) throw new Error(`Not done everywhere. Left: ${value.left.join(', ')}. Give the order again.`);
  throw new Error(value?.message ?? `The gateway answered ${answer.status}.`);
}
