// Orders of a page: asked once in a dialog, given, and their outcome told.

import { confirmed, refuse, tell } from './dom.js';

/** Asks once, gives an order, and tells the outcome; then `again` reads the page's data once more. */
export async function give(name, sentence, run, again) {
  refuse('');
  tell('');
  if (!(await confirmed(name, sentence))) return;
  await carryOut(run, again);
}

/** Gives an order without a question, and tells the outcome; then `again` reads the page's data once more. */
export async function carryOut(run, again) {
  refuse('');
  tell('');
  try {
    tell(await run());
    await again();
  } catch (error) {
    refuse(error.message);
  }
}

/** Calls `run` with the fields of a form instead of sending it, and tells its fault. */
export function onSubmit(id, run) {
  const form = document.getElementById(id);
  form?.addEventListener('submit', async (event) => {
    event.preventDefault();
    refuse('');
    tell('');
    try {
      await run(Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== '')), form);
    } catch (error) {
      refuse(error.message);
    }
  });
}
