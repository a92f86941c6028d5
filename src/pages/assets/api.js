// Requests to the gateway's API with the session of this page. A fault is an Error with the gateway's own sentence. The
// `value` of the Error is the answer's JSON.

const token = document.querySelector('meta[name="csrf-token"]').content;

/** Sends a request. If the answer lacks the other nodes, the page shows a notice. */
async function answer(method, path, accept, body) {
  const headers = { accept };
  if (method !== 'GET') headers['x-csrf-token'] = token;
  if (body !== undefined) headers['content-type'] = 'application/json';
  let got;
  try {
    got = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store' });
  } catch {
    throw new Error('The gateway does not answer. See if this node runs, and if the network reaches it.');
  }
  if (got.status === 401) location.reload();
  if (got.headers.has('x-gateway-partial')) document.getElementById('partial').hidden = false;
  return got;
}

/** Asks the API. Returns the answer's JSON, or throws. */
export async function ask(method, path, body) {
  const got = await answer(method, path, 'application/json', body);
  const text = await got.text();
  let value = null;
  try { value = text === '' ? null : JSON.parse(text); } catch { value = null; }
  if (got.ok) return value;
  // The answer to an order that was not carried out everywhere names the nodes and stores that are left.
  const why = value?.left ? `Not done everywhere. Left: ${value.left.join(', ')}. Give the order again.` : value?.message;
  throw Object.assign(new Error(why ?? `The gateway answered ${got.status}.`), { value });
}

/** Reads a path in a type other than JSON. Returns the text, or throws. */
export async function text(path, accept) {
  const got = await answer('GET', path, accept);
  if (!got.ok) throw new Error(`The gateway answered ${got.status}.`);
  return got.text();
}
