//! Request bodies that are read whole, and the reasons why a body cannot be used.

use crate::base::bounded_body::{self, BodyTimeouts, NotWhole};
use bytes::Bytes;
use http_body::Body;

/// The largest request body in bytes that is read whole. Real bank and watchlist requests have a few hundred bytes.
pub const LARGEST_BODY: usize = 1 << 20;

/// The reason why a request body can't be used. Iluma receives no part of such a body, or a part without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is larger than [`LARGEST_BODY`]. The answer is a 413.
    #[error("the request body is larger than 1 MiB")]
    TooLarge,
    /// The gateway as a whole, or this tenant, already holds as many bytes of request bodies as it may. The answer is a
    /// 503.
    #[error("too many request bodies are held at once (server.max_buffered), so nothing was sent; try again later")]
    NoRoom,
    /// The client sent nothing for too long, or the whole body did not arrive in time. The answer is a 408.
    #[error("the request body did not arrive in time")]
    TooSlow,
    /// The client closed the connection, or its framing is malformed. The answer is a 400, if the client still receives
    /// it.
    #[error("the request body was cut off")]
    CutOff,
    /// The body has a content encoding that this route can't read, or is too large once it is decoded. The answer is a
    /// 400.
    #[error(
        "this route can't read the body with its content-encoding, or it is larger than 16 MiB once it is decoded; send it \
         without content-encoding"
    )]
    Encoded,
    /// The type or the charset of the body is not supported, or the type is given twice. The answer is a 400.
    #[error(
        "the content type must be application/json, application/x-www-form-urlencoded or, where files are taken, \
         multipart/form-data"
    )]
    UnknownType,
    /// The body is not well-formed for its type, or parsers read it in different ways. The answer is a 400.
    #[error("the request body is malformed")]
    Malformed,
    /// The body is declared as a form, and is JSON. The answer is a 400.
    #[error("the content type says that this is a form, and the body is JSON: send it as application/json")]
    Mistyped,
    /// `reference_id` is not a string, is given twice, is too long, or servers disagree about it. The answer is a 400.
    #[error("reference_id must be given once, under exactly this name, as a string of at most 4096 bytes")]
    Reference,
    /// `reference_id` begins with the prefix of another team, on a route where references are not prefixed. The answer
    /// is a 400.
    #[error("reference_id begins with the name of another team and a colon, which is reserved for that team")]
    Foreign,
}

impl<E> From<NotWhole<E>> for BodyError {
    fn from(reason: NotWhole<E>) -> Self {
        match reason {
            NotWhole::TooLarge => Self::TooLarge,
            NotWhole::NoRoom => Self::NoRoom,
            NotWhole::TooSlow => Self::TooSlow,
            NotWhole::Broken(_) => Self::CutOff,
        }
    }
}

/// Reads a whole body of at most [`LARGEST_BODY`] bytes. Before each piece is held, `room` gets its number of bytes,
/// and returns false if there is no room for them.
///
/// # Errors
/// Returns an error if the body is too large, finds no room, is too slow or cut off.
pub async fn read<B>(body: B, timeouts: BodyTimeouts, room: impl FnMut(usize) -> bool) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    Ok(bounded_body::read(body, LARGEST_BODY, Some(timeouts), room).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use std::time::Duration;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        let timeouts = BodyTimeouts { idle: Duration::from_secs(60), total: Duration::from_secs(60) };
        let read = |body: Vec<Vec<u8>>| async move {
            let frames = body.into_iter().map(|chunk| Ok::<_, std::io::Error>(http_body::Frame::data(chunk.into())));
            super::read(StreamBody::new(futures_util::stream::iter(frames)), timeouts, |_| true).await
        };
        assert_eq!(read(vec![vec![0; LARGEST_BODY]]).await.map(|b| b.len()), Ok(LARGEST_BODY));
        assert_eq!(read(vec![vec![0; LARGEST_BODY], vec![0]]).await, Err(BodyError::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_drips_is_given_up() {
        let timeouts = BodyTimeouts { idle: Duration::from_secs(10), total: Duration::from_secs(25) };
        let stopped =
            StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
        assert_eq!(super::read(stopped, timeouts, |_| true).await, Err(BodyError::TooSlow));
        let drip = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(b"x"))), ()))
        });
        assert_eq!(super::read(StreamBody::new(drip), timeouts, |_| true).await, Err(BodyError::TooSlow));
    }
}
