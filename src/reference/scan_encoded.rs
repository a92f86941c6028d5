//! Decodes an encoded body, and scans it for another team's prefix.
//!
//! Invariants: every byte that a server could decode from the received part was scanned; at most [`LARGEST_DECODED`]
//! bytes of one body are decoded.

use super::body::BodyError;
use super::content_type::Encoding;
use super::foreign_prefix::ForeignPrefixScanner;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use std::io::{self, Write};

/// The largest decoded length of a body in bytes. Pictures in base64 have several megabytes.
const LARGEST_DECODED: usize = 16 << 20;

/// Decodes a body piece by piece and scans the result. A body that servers may decode in two ways is scanned in both.
pub(super) struct EncodedScanner(Vec<Decoder>);

enum Decoder {
    Gzip(MultiGzDecoder<Sink>),
    /// Deflate with zlib's header, as the standard requires.
    Zlib(ZlibDecoder<Sink>),
    /// Deflate without a header, as many clients send it.
    Raw(DeflateDecoder<Sink>),
    /// The data could not be decoded, so the rest of the body is not scanned in this way.
    Broken,
}

impl EncodedScanner {
    pub(super) fn new(encoding: Encoding, scanner: impl Fn() -> ForeignPrefixScanner) -> Self {
        let sink = || Sink { scanner: scanner(), length: 0, fault: None };
        Self(match encoding {
            Encoding::Gzip => vec![Decoder::Gzip(MultiGzDecoder::new(sink()))],
            Encoding::Deflate => {
                vec![Decoder::Zlib(ZlibDecoder::new(sink())), Decoder::Raw(DeflateDecoder::new(sink()))]
            }
        })
    }

    /// Scans the next piece. After an error no byte of the piece may pass.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.0.iter_mut().try_for_each(|decoder| decoder.feed(data))
    }
}

impl Decoder {
    fn feed(&mut self, data: &[u8]) -> Result<(), BodyError> {
        let (written, fault) = match self {
            Self::Gzip(decoder) => decode(decoder, data, MultiGzDecoder::try_finish, MultiGzDecoder::get_ref),
            Self::Zlib(decoder) => decode(decoder, data, ZlibDecoder::try_finish, ZlibDecoder::get_ref),
            Self::Raw(decoder) => decode(decoder, data, DeflateDecoder::try_finish, DeflateDecoder::get_ref),
            Self::Broken => return Ok(()),
        };
        if written.is_err() {
            *self = Self::Broken;
        }
        fault.map_or(Ok(()), Err)
    }
}

/// Decodes a whole piece. Returns the decoder's result, and the fault that the sink has found in the decoded bytes;
/// `None` if it has found none.
fn decode<D: Write>(
    decoder: &mut D,
    data: &[u8],
    finish: impl Fn(&mut D) -> io::Result<()>,
    sink: impl Fn(&D) -> &Sink,
) -> (io::Result<()>, Option<BodyError>) {
    let written = decoder.write_all(data).and_then(|()| decoder.flush());
    if written.is_err() {
        // The decoder still has bytes that it decoded before the error. Finishing it passes them to the sink.
        let _ = finish(decoder);
    }
    let fault = sink(decoder).fault;
    (written, fault)
}

/// A writer that receives the decoded bytes and scans them.
struct Sink {
    scanner: ForeignPrefixScanner,
    length: usize,
    fault: Option<BodyError>,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.length = self.length.saturating_add(data.len());
        let scanned = if self.length > LARGEST_DECODED { Err(BodyError::Encoded) } else { self.scanner.feed(data) };
        match scanned {
            Ok(()) if self.fault.is_none() => Ok(data.len()),
            scanned => {
                self.fault = self.fault.or(scanned.err());
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::name::TenantName;
    use crate::reference::{ReferencePrefix, ReferencePrefixes};
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    fn scanner(encoding: Encoding) -> EncodedScanner {
        let teams: [TenantName; 2] = ["lending", "payments"].map(|name| name.parse().unwrap());
        let own = ReferencePrefix::of(&teams[0]);
        let prefixes = ReferencePrefixes::of(teams);
        EncodedScanner::new(encoding, || ForeignPrefixScanner::json(&own, &prefixes))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Returns a text in each encoding, for tests.
    fn encoded(text: &str) -> Vec<(Encoding, Vec<u8>)> {
        let text = text.as_bytes();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(text).unwrap();
        let (left, right) = text.split_at(text.len() / 2);
        vec![
            (Encoding::Gzip, gzip(text)),
            (Encoding::Gzip, [gzip(left), gzip(right)].concat()),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Deflate, raw.finish().unwrap()),
        ]
    }

    #[test]
    fn another_teams_prefix_is_found_in_every_encoding_and_however_it_is_cut() {
        for (text, expected) in [
            (r#"{"a":1,"reference_id":"payments:foo"}"#, Err(BodyError::Foreign)),
            (r#"{"a":1,"reference_id":"lending:foo"}"#, Ok(())),
        ] {
            for (encoding, body) in encoded(text) {
                for size in [1, 5, body.len()] {
                    let mut scanner = scanner(encoding);
                    let judged = body.chunks(size).try_for_each(|piece| scanner.feed(piece));
                    assert_eq!(judged, expected, "{encoding:?} {size} {text}");
                    let is_read = |decoder: &Decoder| !matches!(decoder, Decoder::Broken);
                    assert!(expected.is_err() || scanner.0.iter().any(is_read), "{encoding:?}");
                }
            }
        }
    }

    #[test]
    fn what_no_server_can_decode_passes_after_what_it_can() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            assert_eq!(scanner(encoding).feed(&[0xff; 100]), Ok(()), "{encoding:?}");
        }
        let foreign = gzip(br#"{"reference_id":"payments:foo"}"#);
        assert_eq!(scanner(Encoding::Gzip).feed(&foreign[..foreign.len() - 8]), Err(BodyError::Foreign));
        assert_eq!(scanner(Encoding::Gzip).feed(&[&foreign[..], b"junk"].concat()), Err(BodyError::Foreign));
        // A block that is stored, then one of a type that does not exist: a server may stop at the end of the object.
        let text = br#"{"reference_id":"payments:foo"}"#;
        let length = u16::try_from(text.len()).unwrap();
        let block = [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), text, &[7]].concat();
        assert_eq!(scanner(Encoding::Deflate).feed(&block), Err(BodyError::Foreign));
    }

    #[test]
    fn a_small_body_that_becomes_a_large_one_is_refused() {
        let bomb = gzip(&vec![b' '; LARGEST_DECODED + 1]);
        assert!(bomb.len() < LARGEST_DECODED / 100);
        assert_eq!(scanner(Encoding::Gzip).feed(&bomb), Err(BodyError::Encoded));
        assert_eq!(scanner(Encoding::Gzip).feed(&gzip(&vec![b' '; 1 << 20])), Ok(()));
    }
}
