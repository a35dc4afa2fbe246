//! What an error reply of Redis means, by its code.
//!
//! Our own table: the client library's advice on retrying does not know OOM or NOREPLICAS, and an
//! unknown code must never pass for success or for bad data.

/// What to do after an error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server cannot serve now, or is not the right one any more: connect anew and read
    /// positions again.
    Reconnect,
    /// The server is well but has no room or no patience for this write: wait, then try again.
    BackOff,
    /// The script is not loaded: load it.
    NoScript,
    /// A person must act: rights, passwords, kinds of keys. Until then wait as for `Reconnect`.
    Operator,
}

/// Classifies an error reply by its code, the first word. Text after the code differs between
/// versions and between calls from scripts, so it is never looked at.
pub fn classify(code: &str) -> Class {
    match code {
        "OOM" | "NOREPLICAS" | "BUSY" | "MISCONF" => Class::BackOff,
        "NOSCRIPT" => Class::NoScript,
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "WRONGTYPE" | "CROSSSLOT" => Class::Operator,
        // LOADING, MASTERDOWN, READONLY, CLUSTERDOWN, MOVED, ASK, TRYAGAIN, UNBLOCKED, and
        // whatever is unknown: nothing is believed until positions have been read again.
        _ => Class::Reconnect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_each_code() {
        let cases = [
            ("OOM", Class::BackOff),
            ("NOREPLICAS", Class::BackOff),
            ("BUSY", Class::BackOff),
            ("MISCONF", Class::BackOff),
            ("NOSCRIPT", Class::NoScript),
            ("NOAUTH", Class::Operator),
            ("WRONGPASS", Class::Operator),
            ("NOPERM", Class::Operator),
            ("WRONGTYPE", Class::Operator),
            ("CROSSSLOT", Class::Operator),
            ("LOADING", Class::Reconnect),
            ("MASTERDOWN", Class::Reconnect),
            ("READONLY", Class::Reconnect),
            ("CLUSTERDOWN", Class::Reconnect),
            ("MOVED", Class::Reconnect),
            ("TRYAGAIN", Class::Reconnect),
            ("ERR", Class::Reconnect),
            ("SOMETHINGNEW", Class::Reconnect),
        ];
        for (code, class) in cases {
            assert_eq!(classify(code), class, "{code}");
        }
    }
}
