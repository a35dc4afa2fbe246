//! Keys: plain, and told apart by what they begin with.

use crate::error::{Error, Kind, Result};
use crate::text::line;

/// Bytes of a name. Room for an address or a URL's path, and still a line to read.
const LONGEST: usize = 256;
/// Characters of a name that is refused, in the error.
const SHOWN: usize = 60;

/// The key of something of this kind, without the prefix: `lock:order:42:receipt`. It can be none of the
/// relay's own, which begin with `outbox:`.
///
/// # Errors
/// `Usage` if the name is empty, longer than 256 bytes, has white space or controls in it, or begins with
/// the kind, which would stand there twice.
pub(super) fn key(kind: &str, name: &str) -> Result<String> {
    let wrong = match name {
        "" => "is empty",
        _ if name.len() > LONGEST => "is longer than 256 bytes",
        _ if name.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            "has white space or a control character in it"
        }
        _ if name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(':')) => {
            "begins with what is put before it anyway; leave that out"
        }
        _ => return Ok(format!("{kind}:{name}")),
    };
    let context = format!("the name {:?} of a {kind} {wrong}", line(name, SHOWN));
    Err(Error::new(Kind::Usage, context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain() {
        let made = |kind, name| key(kind, name).expect("a key");
        assert_eq!(made("lock", "order:42:receipt"), "lock:order:42:receipt");
        assert_eq!(made("once", "outbox:identity"), "once:outbox:identity");
        assert_eq!(made("rate_limit", "größe{7}"), "rate_limit:größe{7}");
        assert_eq!(made("lock", "locksmith"), "lock:locksmith");
        assert_eq!(made("lock", &"x".repeat(256)).len(), 261);
    }

    #[test]
    fn bad_names_are_refused_in_words() {
        let long = "x".repeat(257);
        let cases = [
            ("", "is empty"),
            (long.as_str(), "longer than 256 bytes"),
            ("order 42", "white space"),
            ("order\n42", "white space"),
            ("order\0", "control"),
            ("order\u{2003}42", "white space"),
            ("lock:order:42", "leave that out"),
        ];
        for (name, said) in cases {
            let told = key("lock", name).expect_err(name);
            assert_eq!(told.kind(), Kind::Usage);
            let told = told.to_string();
            assert!(told.contains(said) && !told.contains('\n') && told.len() < 200, "{told}");
        }
    }
}
