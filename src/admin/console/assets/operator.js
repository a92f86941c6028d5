// What operators alone have: roles, and the gateway's metrics.

const roles = ['viewer', 'operator', 'admin'];

/** True if the session's role may give an order that needs this role. */
export const may = (role) => roles.indexOf(document.body.dataset.role) >= roles.indexOf(role);

/** Reads the gateway's metrics: a list of [name, labels, value]. */
export async function metrics() {
  const answer = await fetch('/metrics', { cache: 'no-store' });
  const lines = (await answer.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return lines.map((line) => {
    const [, name, labels, value] = line.match(/^([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)/) ?? [];
    const pairs = [...(labels ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key, text]);
    return { name, labels: Object.fromEntries(pairs), value: Number(value) };
  });
}
