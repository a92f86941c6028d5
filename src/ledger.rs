//! The ledger: calls to Iluma, their charges, and the calls that the gateway saved.
//!
//! Invariants:
//! - No call that may be charged is sent before its intent is on disk.
//! - Until the outcome of a call is on disk, the call counts as unknown. So this holds at any moment, also after a
//!   crash: `billable <= Iluma's count <= billable + unknown`.
//! - A caller that is cancelled at any point leaves no intent for a call that was not sent.
//! - Only keyed hashes are stored: no id, and no data of a person.
//! - A hit costs one addition in memory.
//!
//! | file | content |
//! |---|---|
//! | `books` | [`Ledger`], its calls and statements |
//! | `booking` | [`Booking`], the guard of one call's intent |
//! | `batch` | the writer, which writes outcomes and counts to the disk |
//! | `by_hand` | settlements by an operator, over nodes |
//! | `inner` | the state that these files share |
//! | `keeper` | the background task: flushes, exchanges with other nodes, prunes |
//! | `outage` | times in which the database can't be written |
//! | `published` | the ledgers of other nodes in Redis |
//! | `restore` | recovery of a journal that is older than what was published |
//! | `reports` | settlements by id over nodes, in Redis |
//! | `rendezvous` | settlements by reference over nodes, in Redis |
//! | `journal` | the tables and statements |
//! | `closing`, `references` | the ends of calls: by their answer, by the id of their record, by its reference |
//! | `counts`, `selection`, `tally`, `settlement`, `charge` | the types |

mod batch;
mod booking;
mod books;
mod by_hand;
mod charge;
mod closing;
mod counts;
mod csv;
mod inner;
mod journal;
mod keeper;
mod outage;
mod published;
mod references;
mod rendezvous;
mod reports;
mod restore;
mod selection;
mod settlement;
mod tally;
mod totals;

pub use booking::{Booking, Referrer};
pub use books::{Ledger, report};
pub use charge::{ChargeOutcome, Outcome, charge_outcome, seen, settlement_in};
pub use counts::{Counts, Row, Statement};
pub use csv::csv;
pub use journal::MIGRATIONS;
pub use selection::{Columns, Selection};
pub use settlement::{CallNumber, ClaimLink, HandError, OpenCall, Refund, SettledByHand, Spent, Why};
pub use tally::Tally;
pub use totals::RouteTotals;
