// Orders of a page: the reader confirms an order in a dialog, the page sends it and shows its outcome.

import { confirmed, refuse, tell } from './dom.js';

/** Asks for confirmation, gives an order, and shows its outcome. Then `again` reloads the page's data. */
export async function give(name, sentence, run, again) {
  refuse('');
  tell('');
  if (!(await confirmed(name, sentence))) return;
  await carryOut(run, again);
}

/** Gives an order without asking for confirmation, and shows its outcome. Then `again` reloads the page's data. */
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

/** Calls `run` with the fields of a form instead of sending the form, and shows the fault of `run`. */
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
