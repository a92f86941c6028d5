//! HTTP/2 frames by hand (RFC 9113), for what a well-behaved client can not send.

/// One HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("a length").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block without compression: GET of a path with a key.
pub fn block(path: &str, authorization: &str) -> Vec<u8> {
    // Indexed :method GET and :scheme http, then literals without indexing (RFC 7541, section 6.2.2).
    let mut block = vec![0x82, 0x86, 0x04];
    block.push(u8::try_from(path.len()).expect("a short path"));
    block.extend(path.as_bytes());
    for (name, value) in [("authorization", authorization)] {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "needs a longer length");
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    block
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEADERS: u8 = 1;
pub const RST: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;
