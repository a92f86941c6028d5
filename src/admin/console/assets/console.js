// The console: reads the view of this page from the admin API, and gives its orders.

import { refuse, show, zone, ownZone } from './dom.js';
import * as overview from './overview.js';
import * as teams from './teams.js';
import * as live from './live.js';
import * as cache from './cache.js';
import * as callbacks from './callbacks.js';
import * as erasure from './erasure.js';
import * as money from './money.js';
import * as nodes from './nodes.js';

const view = { overview, teams, live, cache, callbacks, erasure, money, nodes }[document.body.dataset.view];

/** Runs a part of the view, and shows its fault. */
async function run(part) {
  document.getElementById('partial').hidden = true;
  try {
    await part();
    refuse('');
  } catch (error) {
    refuse(error.message);
  }
}

show('zones', zone === ownZone
  ? `Times, and the days of the books, are those of ${zone}.`
  : `Times are those of ${ownZone}; a pointer on one shows it in ${zone}, in which the days of the books begin.`);
view.bind?.(run);
run(() => view.read());
// A page that stays open reloads its data.
if (view.EVERY) setInterval(() => { if (document.visibilityState === 'visible') run(() => view.read()); }, view.EVERY);
