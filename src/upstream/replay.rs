//! Keeps a request while it is sent, in case Iluma proves that it processed nothing of it.

use super::outgoing::{Outgoing, OutgoingBody};
use super::pieces::Pieces;
use std::sync::Arc;

/// A request that may have to be sent again.
#[derive(Debug)]
pub(super) struct Replay {
    request: Outgoing,
    /// The pieces of a streamed body that were sent; `None` if `request` has the body.
    sent: Option<Arc<Pieces>>,
}

impl Replay {
    /// Keeps a copy of a request that is about to be sent. A streamed body is copied while it is sent.
    pub(super) fn of(request: &mut Outgoing) -> Self {
        let (body, pieces) = match &mut request.body {
            OutgoingBody::Empty => (OutgoingBody::Empty, None),
            OutgoingBody::Full(data) => (OutgoingBody::Full(data.clone()), None),
            OutgoingBody::Stream { sent, .. } => {
                let pieces = Arc::new(Pieces::default());
                *sent = Some(Arc::clone(&pieces));
                (OutgoingBody::Empty, Some(pieces))
            }
        };
        Self { request: request.head(body), sent: pieces }
    }

    /// Returns the copy; `None` if the body was not kept whole.
    pub(super) fn into_request(self) -> Option<Outgoing> {
        let Some(pieces) = self.sent else { return Some(self.request) };
        let whole = pieces.whole()?;
        let body = if whole.is_empty() { OutgoingBody::Empty } else { OutgoingBody::Full(Some(whole)) };
        Some(Outgoing { body, ..self.request })
    }
}
