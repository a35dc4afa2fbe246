//! Names that applications gave to groups and consumers: any bytes, kept as text.

/// Text of a name: itself, or, if it is no text that Postgres could store, `\x` and hexadecimal digits.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') && !text.starts_with("\\x") => text.to_owned(),
        _ => bytes.iter().fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// The bytes of a name whose text this is.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("\\x").map(str::as_bytes);
    let pairs = digits.filter(|digits| digits.len() % 2 == 0).map(|digits| digits.chunks(2));
    let decoded: Option<Vec<u8>> = pairs.and_then(|pairs| {
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    });
    decoded.unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::{bytes, text};

    #[test]
    fn every_name_survives() {
        for name in [&b"mail"[..], b"", b"\0", b"\xff\xfe", b"\\x41", b"\\x", "größe".as_bytes()]
        {
            assert_eq!(bytes(&text(name)), name, "{name:?}");
        }
        assert_eq!(text(b"mail"), "mail");
        assert_eq!(text(b"\xff"), "\\xff");
    }
}
