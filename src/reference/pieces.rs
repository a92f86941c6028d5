//! Pieces of a body that are ready to be forwarded.

use crate::base::json_template::join;
use bytes::Bytes;
use std::collections::VecDeque;

/// A queue of pieces that are ready to be forwarded. Small pieces are joined.
#[derive(Default)]
pub(super) struct Pieces(VecDeque<Bytes>);

/// The largest piece, in bytes, that is made by joining smaller pieces. Joining costs a copy of the bytes, and saves an
/// HTTP/2 frame or an HTTP/1.1 chunk.
const SMALL: usize = 4 << 10;

impl Pieces {
    pub(super) fn push(&mut self, piece: Bytes) {
        match self.0.back_mut() {
            _ if piece.is_empty() => {}
            Some(last) if last.len() + piece.len() <= SMALL => *last = join(&[last, &piece]),
            _ => self.0.push_back(piece),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}
