//! The header of the PROXY protocol (versions 1 and 2), by which TCP load balancers name the client.
//!
//! Invariants:
//! - No byte after the header is read.
//! - The length of the header is bounded.
//! - A connection without a header is refused. If the header were optional, a client could send its own and forge an
//!   address.

use ppp::{HeaderResult, v1, v2};
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first bytes of a header of version 2. Every header of version 1 has at least this length.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length in bytes of the fixed part of a header of version 2: signature, command, family, and the length of the
/// rest.
const FIXED: usize = 16;
/// The longest header of version 1 in bytes, by the specification. It is a line of text.
const LONGEST_LINE: usize = 107;
/// The largest length in bytes after the fixed part of a header of version 2. Addresses have at most 216 bytes;
/// extensions usually have less than a kilobyte.
const LONGEST_REST: usize = 4096;

/// Reads the header. Returns the client's address; `None` if the header names no client, such as for a health check of
/// the load balancer.
///
/// # Errors
/// Returns an error if the connection broke, or does not begin with a valid header.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(FIXED, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
        if rest > LONGEST_REST {
            return Err(invalid("the header of the PROXY protocol is too long"));
        }
        header.resize(FIXED + rest, 0);
        stream.read_exact(&mut header[FIXED..]).await?;
    } else {
        if !header.starts_with(b"PROXY ") {
            return Err(invalid("the connection does not begin with a header of the PROXY protocol"));
        }
        while !header.ends_with(b"\n") && header.len() < LONGEST_LINE {
            header.push(stream.read_u8().await?);
        }
    }
    source(&header).map_err(invalid)
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Returns the client's address from a complete header; `None` if the header names no client.
fn source(header: &[u8]) -> Result<Option<IpAddr>, &'static str> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
            v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
            (v2::Command::Proxy, v2::Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
            (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) | (v2::Command::Local, _) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err("the header of the PROXY protocol is not valid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a header of version 2 with this command and family, and with `rest` after its length.
    fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, rest].concat()
    }

    async fn read_all(bytes: &[u8]) -> (Result<Option<String>, io::ErrorKind>, usize) {
        let mut left = bytes;
        let read = read(&mut left).await;
        (read.map(|source| source.map(|source| source.to_string())).map_err(|error| error.kind()), left.len())
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_the_rest_unread() {
        let four = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb];
        let six = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 16], &four[8..]].concat();
        let noted = [&four[..], &[0x04, 0, 2, 0, 0]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n".to_vec(), Some("203.0.113.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 4660 443\r\n".to_vec(), Some("2001:db8::7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (second(1, 0x11, &four), Some("203.0.113.7")),
            (second(1, 0x11, &noted), Some("203.0.113.7")),
            (second(1, 0x21, &six), Some("2001:db8::7")),
            (second(0, 0x11, &four), None),
            (second(0, 0x00, &[]), None),
            (second(1, 0x00, &[]), None),
        ] {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            let expected = Ok(expected.map(str::to_owned));
            assert_eq!(read_all(&bytes).await, (expected, 16), "{:?}", String::from_utf8_lossy(&header));
        }
    }

    #[tokio::test]
    async fn a_connection_without_a_valid_header_is_refused() {
        let (invalid, short) = (io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof);
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), invalid),
            (b"PROXY TCP4 not.an.address 10.0.0.1 1 2\r\n".to_vec(), invalid),
            (b"PROXY TCP5 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(), invalid),
            ([&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(), invalid),
            (b"PROXY TCP4 203.0.113.7".to_vec(), short),
            (b"PROXY ".to_vec(), short),
            (second(1, 0x11, &[1, 2, 3]), invalid),
            (second(1, 0x11, &[0; 5000]), invalid),
            (second(1, 0x11, &[0; 12])[..20].to_vec(), short),
            (vec![], short),
        ] {
            assert_eq!(read_all(&bytes).await.0, Err(expected), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
