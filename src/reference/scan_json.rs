//! Scans the top level of a JSON object for another team's prefix.

use super::body::BodyError;
use super::judge::Judge;
use super::name::{Named, named, named_so_far};

/// Reads a JSON text byte by byte, and passes its references to a [`Judge`]. A malformed text is not refused here,
/// because Iluma refuses it.
#[derive(Default)]
pub(super) struct JsonReader {
    depth: usize,
    /// True if the next string at the top level is a member's value, false if it is a member's name.
    value: bool,
    /// True if at least one server reads the latest member's name at the top level as `reference_id`.
    reference: bool,
    state: ScanState,
}

/// The position of the next byte in a JSON text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    /// The next byte precedes the object.
    #[default]
    Before,
    Between,
    Name {
        escaped: bool,
    },
    Reference {
        escaped: bool,
    },
    Skipped {
        escaped: bool,
    },
    /// The text is not an object, so it has no reference.
    Done,
}

impl JsonReader {
    pub(super) fn feed(&mut self, data: &[u8], judge: &mut Judge) -> Result<(), BodyError> {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            // Files in base64 are long, so the end of a skipped string is searched for.
            let skipped = match self.state {
                ScanState::Done => return Ok(()),
                ScanState::Skipped { escaped: false } => memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len()),
                ScanState::Before
                | ScanState::Between
                | ScanState::Name { .. }
                | ScanState::Reference { .. }
                | ScanState::Skipped { escaped: true } => 0,
            };
            if let Some(byte) = rest.get(skipped) {
                self.state = self.byte(*byte, judge)?;
            }
            at += skipped + 1;
        }
        // The body may end after this piece, and a server may accept the incomplete reference. So the received part of
        // the reference is checked before it passes.
        if matches!(self.state, ScanState::Reference { .. }) { judge.so_far() } else { Ok(()) }
    }

    fn byte(&mut self, byte: u8, judge: &mut Judge) -> Result<ScanState, BodyError> {
        Ok(match self.state {
            ScanState::Before => match byte {
                // A byte order mark may precede the object. In UTF-16 and UTF-32, NUL bytes may precede it too.
                b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf | 0xfe | 0xff | 0 => ScanState::Before,
                b'{' => {
                    *self = Self { depth: 1, ..Self::default() };
                    ScanState::Between
                }
                _ => ScanState::Done,
            },
            // A NUL byte means UTF-16 or UTF-32, in which names would be misread. JSON in UTF-8 has no such byte.
            ScanState::Between | ScanState::Name { .. } if byte == 0 => return Err(BodyError::UnknownType),
            ScanState::Between => return self.between(byte),
            ScanState::Name { escaped: false } if byte == b'"' => {
                self.reference = named(&judge.name()) != Named::Other;
                judge.clear();
                ScanState::Between
            }
            ScanState::Name { escaped } => {
                let escaped = byte == b'\\' && !escaped;
                if judge.name_byte(byte) {
                    ScanState::Name { escaped }
                } else if named_so_far(&judge.name()) == Named::Other {
                    judge.clear();
                    ScanState::Skipped { escaped }
                } else {
                    return Err(BodyError::Reference);
                }
            }
            ScanState::Reference { escaped: false } if byte == b'"' => {
                judge.end_of_reference()?;
                ScanState::Between
            }
            ScanState::Reference { escaped } => {
                judge.reference_byte(byte)?;
                ScanState::Reference { escaped: byte == b'\\' && !escaped }
            }
            ScanState::Skipped { escaped: false } if byte == b'"' => ScanState::Between,
            ScanState::Skipped { escaped } => ScanState::Skipped { escaped: byte == b'\\' && !escaped },
            ScanState::Done => ScanState::Done,
        })
    }

    /// Reads a byte that is not in a string, and returns the next state.
    fn between(&mut self, byte: u8) -> Result<ScanState, BodyError> {
        match byte {
            b'"' if self.depth > 1 => return Ok(ScanState::Skipped { escaped: false }),
            b'"' if !self.value => return Ok(ScanState::Name { escaped: false }),
            b'"' if self.reference => return Ok(ScanState::Reference { escaped: false }),
            b'"' => return Ok(ScanState::Skipped { escaped: false }),
            b'{' | b'[' => {
                // Some servers read a list of one text as that text.
                if self.depth == 1 && self.reference {
                    return Err(BodyError::Reference);
                }
                self.depth += 1;
            }
            b'}' | b']' => {
                self.depth -= 1;
                // More objects may follow, for servers that read line by line.
                if self.depth == 0 {
                    return Ok(ScanState::Before);
                }
            }
            b':' if self.depth == 1 => self.value = true,
            b',' if self.depth == 1 => (self.value, self.reference) = (false, false),
            _ => {}
        }
        Ok(ScanState::Between)
    }
}

/// Decodes the text between the quotes of a JSON string. The text may be incomplete or malformed.
pub(super) fn unescaped(inner: &[u8]) -> String {
    let (mut text, mut rest) = (Vec::with_capacity(inner.len()), inner);
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'\\' {
            text.push(*byte);
            continue;
        }
        let Some((escape, behind)) = rest.split_first() else { break };
        rest = behind;
        let letter = match escape {
            b'u' => {
                let Some((hex, behind)) = rest.split_at_checked(4) else { break };
                rest = behind;
                let code = std::str::from_utf8(hex).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
                // Half a surrogate pair becomes a character that is in no team's name and is no space.
                code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            other => char::from(*other),
        };
        text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }
    String::from_utf8_lossy(&text).into_owned()
}
