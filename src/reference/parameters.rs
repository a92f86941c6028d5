//! Parameters of a header field (RFC 9110, section 5.6.6). A text that parsers read in different ways is refused.

/// The largest number of parameters of a field. Two parameters are usual. The bound exists because each parameter is
/// compared with all others.
const MOST_PARAMETERS: usize = 16;

/// A parameter of a field, without the quotes of its value.
pub(super) struct Parameter<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// Parses `; name=value; name="value"`. Returns `None` if the text is malformed or has too many parameters. Also
/// returns `None` if the text has an escaped quote, because some parsers end the value there.
pub(super) fn parameters(mut rest: &[u8]) -> Option<Vec<Parameter<'_>>> {
    let mut parameters = Vec::new();
    while parameters.len() <= MOST_PARAMETERS {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(parameters);
        }
        rest = rest.strip_prefix(b";")?.trim_ascii_start();
        if rest.is_empty() {
            // A semicolon at the end is harmless.
            return Some(parameters);
        }
        let equals = rest.iter().position(|b| !is_token(*b))?;
        let (name, behind) = rest.split_at(equals);
        let behind = behind.strip_prefix(b"=").filter(|_| !name.is_empty())?;
        let (value, behind) = match behind.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted.iter().position(|b| *b == b'"')?;
                if quoted[..end].ends_with(b"\\") {
                    return None;
                }
                (&quoted[..end], &quoted[end + 1..])
            }
            None => {
                let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b';' | b',') || !b.is_ascii();
                let end = behind.iter().position(|b| !plain(*b)).unwrap_or(behind.len());
                if end == 0 {
                    return None;
                }
                behind.split_at(end)
            }
        };
        parameters.push(Parameter { name, value });
        rest = behind;
    }
    None
}

pub(super) fn starts_with_ignoring_case(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}

/// Returns true if a token may contain the byte (RFC 9110, section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
