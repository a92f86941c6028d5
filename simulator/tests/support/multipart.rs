//! Multipart forms, for the tests of the simulator and of the gateway.

/// A part of a multipart form. `Text` has a name and a text; `File` has a name, a file name, a content type and a
/// content.
#[derive(Debug, Clone)]
pub enum Part<'a> {
    Text(&'a str, &'a str),
    File(&'a str, &'a str, &'a str, Vec<u8>),
}

/// Returns a multipart form of these parts; `between` is its boundary.
pub fn multipart(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        let (head, content) = match part {
            Part::Text(name, text) => (format!("content-disposition: form-data; name=\"{name}\""), text.as_bytes()),
            Part::File(name, file, kind, content) => {
                let disposition = format!("content-disposition: form-data; name=\"{name}\"; filename=\"{file}\"");
                (format!("{disposition}\r\ncontent-type: {kind}"), content.as_slice())
            }
        };
        body.extend_from_slice(format!("--between\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--between--\r\n");
    body
}
