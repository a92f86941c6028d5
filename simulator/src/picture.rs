//! The size of a picture, from its first bytes.

/// Returns width and height of a PNG, BMP or JPEG; `None` if the bytes are something else or too few.
pub(super) fn pixels(head: &[u8]) -> Option<(u32, u32)> {
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some((big(head, 16, 4)?, big(head, 20, 4)?));
    }
    if head.starts_with(b"BM") {
        let little = |at: usize| Some(i32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?).unsigned_abs());
        return Some((little(18)?, little(22)?));
    }
    if head.starts_with(&[0xff, 0xd8]) {
        return jpeg(head);
    }
    None
}

/// Returns width and height of a JPEG, from its frame header (SOF0 to SOF15 without DHT, JPG and DAC).
fn jpeg(head: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        if *head.get(at)? != 0xff {
            return None;
        }
        let marker = *head.get(at + 1)?;
        match marker {
            0xff => at += 1,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((big(head, at + 7, 2)?, big(head, at + 5, 2)?));
            }
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => at += 2 + usize::try_from(big(head, at + 2, 2)?).ok()?.max(2),
        }
    }
}

fn big(head: &[u8], at: usize, bytes: usize) -> Option<u32> {
    Some(head.get(at..at + bytes)?.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dimensions_are_read() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\0\0\0\x01\0";
        assert_eq!(pixels(png), Some((512, 256)));
        let jpeg = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 1, 0xff, 0xc0, 0, 11, 8, 1, 0, 2, 0];
        assert_eq!(pixels(&jpeg), Some((512, 256)));
        let mut bmp = b"BM".to_vec();
        bmp.extend_from_slice(&[0; 16]);
        bmp.extend_from_slice(&512i32.to_le_bytes());
        bmp.extend_from_slice(&(-256i32).to_le_bytes());
        assert_eq!(pixels(&bmp), Some((512, 256)));
        assert_eq!(pixels(b"%PDF-1.4"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(start in 0usize..4, mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let starts: [&[u8]; 4] = [b"", b"\x89PNG\r\n\x1a\n", b"BM", &[0xff, 0xd8]];
            bytes.splice(0..0, starts[start].iter().copied());
            let _ = pixels(&bytes);
        }
    }
}
