//! Pages for people: the parts that the operators' console and the team portal share.
//!
//! Invariants:
//! - A page runs only modules of its own origin, and no cache stores the page.
//! - Only hashes of session ids are stored.
//! - An order with a session also carries the session's secret value, or comes from this host's origin.
//!
//! `sessions` keeps the sessions of browsers that have sent a secret, `guard` checks requests that have a session,
//! `assets` serves style sheets and modules, `head` makes headers and cookies, `markup` is the frame of a page.

mod assets;
mod guard;
mod head;
mod markup;
mod sessions;

pub use assets::{Assets, Served};
pub use guard::{cookie, session};
pub use head::{asset_headers, ended_cookie, page_headers, session_cookie};
pub use markup::{Login, confirm_dialog, document_head, login, refusal};
pub use sessions::{Session, Sessions};
