// Tools of the operators' views: the orders that a role may give, the gateway's metrics, sums of the ledger.

import { el } from './dom.js';
import { give } from './orders.js';

const orders = new Set(document.body.dataset.orders.split(' '));

/** True if the session's role may give an order, by its name in the audit log. */
export const may = (order) => orders.has(order);

/** Returns a button that gives an order, or nothing if the role may not give it. `again` reloads the view's data. */
export function button(order, name, sentence, run, again) {
  if (!may(order)) return undefined;
  const isDanger = ['Delete', 'Revoke', 'Suspend'].includes(name);
  const onclick = () => give(name, sentence, run, again);
  return el('button', { type: 'button', class: isDanger ? 'danger' : undefined, onclick }, name);
}

/** Reads the gateway's metrics: a list of names, labels and values. */
export async function metrics() {
  const answer = await fetch('/metrics', { cache: 'no-store' });
  const lines = (await answer.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return lines.map((line) => {
    const [, name, labels, value] = line.match(/^([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)/) ?? [];
    const pairs = [...(labels ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key, text]);
    return { name, labels: Object.fromEntries(pairs), value: Number(value) };
  });
}

/** The series of a metric, by its name without the prefix. */
export const series = (all, name) => all.filter((one) => one.name === `iluma_gateway_${name}`);
/** The sum of a metric's series. */
export const total = (all, name) => series(all, name).reduce((sum, one) => sum + one.value, 0);
/** The sum of a field of the ledger's rows. */
export const sum = (rows, field) => rows.reduce((result, row) => result + (row[field] ?? 0), 0);

/** Returns the amounts spent and saved on each day from one day to another, both included. */
export function byDay(rows, from, to) {
  const days = new Map();
  const step = new Date(`${from}T00:00:00Z`);
  for (let day = from; day <= to && days.size < 4000; day = step.toISOString().slice(0, 10)) {
    days.set(day, { day, spent: 0, saved: 0 });
    step.setUTCDate(step.getUTCDate() + 1);
  }
  for (const row of rows) {
    const day = days.get(row.day);
    if (day === undefined) continue;
    day.spent += row.cost;
    day.saved += row.saved;
  }
  return [...days.values()];
}
