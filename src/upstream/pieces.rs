//! Keeps a small streamed body while it is sent, in case the request has to be sent again.

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;

/// The largest streamed body in bytes that is kept while it is sent. A JSON request fits; a photograph is not sent
/// again.
const MOST_KEPT: usize = 64 << 10;

/// Copies of the pieces of a streamed body, kept while the body is sent.
#[derive(Debug, Default)]
pub struct Pieces(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
    /// True once the end of the body was seen.
    whole: bool,
    /// True once a frame could not be kept.
    lost: bool,
}

impl Pieces {
    /// Records a frame of the body. `frame` is `None` at the end of the body. `end` is true if no frame follows.
    pub(super) fn note<E>(&self, frame: &Option<Result<Frame<Bytes>, E>>, end: bool) {
        let mut kept = self.0.lock();
        match frame {
            None => kept.whole = true,
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if kept.bytes + data.len() <= MOST_KEPT => {
                    kept.bytes += data.len();
                    kept.pieces.push(data.clone());
                    kept.whole |= end;
                }
                // The body is too large, or has trailers.
                Some(_) | None => kept.lose(),
            },
            Some(Err(_)) => kept.lose(),
        }
    }

    /// Returns the whole body; `None` if its end was not seen yet, or if a part of it was not kept.
    pub(super) fn whole(&self) -> Option<Bytes> {
        let kept = self.0.lock();
        (kept.whole && !kept.lost).then(|| kept.pieces.concat().into())
    }
}

impl Kept {
    fn lose(&mut self) {
        self.lost = true;
        self.pieces = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    type Piece = Option<Result<Frame<Bytes>, ()>>;
    /// A name, the pieces with a mark for the last one, and the length of the kept body.
    type Case = (&'static str, Vec<(Piece, bool)>, Option<usize>);

    fn data(bytes: usize) -> Piece {
        Some(Ok(Frame::data(vec![b'x'; bytes].into())))
    }

    #[test]
    fn a_body_is_kept_if_all_of_it_was_seen_and_it_is_small() {
        let trailers = || -> Piece { Some(Ok(Frame::trailers(HeaderMap::new()))) };
        let cases: [Case; 8] = [
            ("one piece that says that it is the last", vec![(data(3), true)], Some(3)),
            ("pieces and an end", vec![(data(1), false), (data(2), false), (None, true)], Some(3)),
            ("nothing at all", vec![(None, true)], Some(0)),
            ("the largest", vec![(data(MOST_KEPT), true)], Some(MOST_KEPT)),
            ("no end yet", vec![(data(3), false)], None),
            ("too large", vec![(data(MOST_KEPT), false), (data(1), false), (None, true)], None),
            ("trailers", vec![(data(1), false), (trailers(), true)], None),
            ("broken off", vec![(data(1), false), (Some(Err(())), false)], None),
        ];
        for (what, frames, expected) in cases {
            let pieces = Pieces::default();
            frames.iter().for_each(|(frame, end)| pieces.note(frame, *end));
            assert_eq!(pieces.whole().map(|body| body.len()), expected, "{what}");
        }
    }
}
