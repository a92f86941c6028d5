//! The boundary of a multipart body.

use super::parameters::{Parameter, parameters, starts_with_ignoring_case};

/// The delimiter between the parts of a multipart body.
#[derive(Debug, Clone)]
pub struct Boundary {
    /// `--` and the boundary.
    pub(super) delimiter: Box<[u8]>,
}

impl Boundary {
    /// Reads the boundary from a content type. The type must be `multipart/form-data` with exactly one boundary of 1 to
    /// 70 characters (RFC 2046, section 5.1.1). Returns `None` for any other type or boundary, for malformed
    /// parameters, and for a charset other than UTF-8. A boundary with spaces is refused too: the RFC allows it, but
    /// some parsers refuse it.
    #[must_use]
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let end = content_type.iter().position(|b| *b == b';')?;
        if !content_type[..end].trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
            return None;
        }
        let mut boundary = None;
        for parameter in parameters(&content_type[end..])? {
            let Parameter { name, value } = parameter;
            if name.eq_ignore_ascii_case(b"boundary") {
                let fits = (1..=70).contains(&value.len()) && value.iter().copied().all(is_boundary);
                if !fits || boundary.replace(value).is_some() {
                    return None;
                }
            } else if starts_with_ignoring_case(name, b"boundary*")
                || (name.eq_ignore_ascii_case(b"charset")
                    && !value.eq_ignore_ascii_case(b"utf-8")
                    && !value.eq_ignore_ascii_case(b"utf8"))
            {
                return None;
            }
        }
        Some(Self { delimiter: [b"--", boundary?].concat().into() })
    }
}

fn is_boundary(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte)
}
