//! Reads bodies whole into memory, within a bound.
//!
//! Invariants: the bytes that are held never exceed the bound, and a piece is held only if there is room for it; a body
//! whose length header exceeds the bound is not read.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body::Body;
use http_body_util::BodyExt as _;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The reason why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWhole<E> {
    /// The body exceeds the bound.
    #[error("the body is too large")]
    TooLarge,
    /// The memory for held bodies is used up.
    #[error("too many bodies are held at once; try again later")]
    NoRoom,
    /// No data arrived within the idle time, or the body did not end within the total time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The peer or the network cut the body off.
    #[error("the body was cut off")]
    Broken(E),
}

/// The time limits for the arrival of a body. The total time begins when the reader first has to wait for data.
#[derive(Debug, Clone, Copy)]
pub struct BodyTimeouts {
    /// The longest time without data.
    pub idle: Duration,
    /// The time for the whole body.
    pub total: Duration,
}

/// Reads a body of at most `most` bytes to its end. If `timeouts` is `None`, the body itself must limit the time.
/// Before a piece is held, `room` is called with the number of its bytes, and returns false if no memory is left for
/// it.
///
/// # Errors
/// Returns an error if the body is too large, finds no room, is too slow or cut off.
pub async fn read<B>(
    body: B,
    most: usize,
    timeouts: Option<BodyTimeouts>,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, NotWhole<B::Error>>
where
    B: Body<Data = Bytes>,
{
    // An answer to HEAD declares the length of the answer to GET, and has no body.
    if body.size_hint().lower() > most as u64 && !body.is_end_stream() {
        return Err(NotWhole::TooLarge);
    }
    let mut body = pin!(body);
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let mut end = None;
    loop {
        // Nearly every body has arrived with its head, and needs no timer.
        let frame = match (body.frame().now_or_never(), timeouts) {
            (Some(frame), _) => frame,
            (None, None) => body.frame().await,
            (None, Some(BodyTimeouts { idle, total })) => {
                let now = Instant::now();
                let deadline = (now + idle).min(*end.get_or_insert(now + total));
                timeout_at(deadline, body.frame()).await.map_err(|_| NotWhole::TooSlow)?
            }
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(NotWhole::Broken)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > most {
            return Err(NotWhole::TooLarge);
        }
        if !room(data.len()) {
            return Err(NotWhole::NoRoom);
        }
        // Nearly every body arrives in one piece, which is then used without a copy.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
        // Another poll would cost one more turn of the scheduler.
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if rest.is_empty() { first } else { [&first[..], &rest[..]].concat().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use std::io;

    async fn pieces(pieces: &[&[u8]], most: usize) -> Result<Bytes, NotWhole<String>> {
        let frames: Vec<_> = pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        read(body, most, None, |_| true).await.map_err(|error: NotWhole<io::Error>| match error {
            NotWhole::Broken(error) => NotWhole::Broken(error.to_string()),
            NotWhole::TooLarge => NotWhole::TooLarge,
            NotWhole::NoRoom => NotWhole::NoRoom,
            NotWhole::TooSlow => NotWhole::TooSlow,
        })
    }

    #[tokio::test]
    async fn pieces_become_one_up_to_the_bound() {
        assert_eq!(pieces(&[], 0).await, Ok(Bytes::new()));
        assert_eq!(pieces(&[b"", b"ab", b"", b"cd", b"e"], 5).await, Ok(Bytes::from_static(b"abcde")));
        assert_eq!(pieces(&[b"ab", b"cd", b"e"], 4).await, Err(NotWhole::TooLarge));
        assert_eq!(pieces(&[b"abcde"], 4).await, Err(NotWhole::TooLarge));
    }

    #[tokio::test]
    async fn a_body_is_held_only_while_there_is_room_for_it() {
        let body = || {
            let frames =
                ["ab", "cd", "e"].map(|piece| Ok::<_, io::Error>(Frame::data(Bytes::from_static(piece.as_bytes()))));
            StreamBody::new(futures_util::stream::iter(frames))
        };
        let mut held = 0;
        let mut room = |bytes| {
            held += bytes;
            held <= 4
        };
        assert!(matches!(read(body(), 5, None, &mut room).await, Err(NotWhole::NoRoom)));
        assert_eq!(held, 5, "asked before each piece is held");
        assert_eq!(read(body(), 5, None, |_| true).await.unwrap(), Bytes::from_static(b"abcde"));
    }

    #[tokio::test]
    async fn one_that_declares_too_much_is_not_begun_and_one_that_breaks_is_not_whole() {
        struct Declared;
        impl Body for Declared {
            type Data = Bytes;
            type Error = io::Error;

            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<Frame<Bytes>, io::Error>>> {
                panic!("nothing of it is to be read")
            }

            fn size_hint(&self) -> http_body::SizeHint {
                http_body::SizeHint::with_exact(5)
            }
        }
        assert!(matches!(read(Declared, 4, None, |_| true).await, Err(NotWhole::TooLarge)));
        assert_eq!(
            read(Full::new(Bytes::from_static(b"abcd")), 4, None, |_| true).await,
            Ok(Bytes::from_static(b"abcd"))
        );
        let frames = [Ok(Frame::data(Bytes::from_static(b"a"))), Err("gone")];
        let broken = read(StreamBody::new(futures_util::stream::iter(frames)), 4, None, |_| true).await;
        assert_eq!(broken, Err(NotWhole::Broken("gone")));
    }
}
