//! Replies as Redis writes them, read by nobody else's code.

/// A reply. What RESP3 has beside RESP2 is not told apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Resp {
    Text(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Nil,
    Array(Vec<Resp>),
    Other,
}

/// What the beginning of some bytes is.
#[derive(Debug, PartialEq)]
pub(super) enum Read {
    /// A reply, and how many bytes it takes.
    Whole(Resp, usize),
    /// More has to come.
    Part,
    /// No reply.
    Garbage,
}

impl Resp {
    /// Its texts, if it is an array of nothing but texts and numbers.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let Self::Array(parts) = self else { return None };
        let text = |part: &Self| match part {
            Self::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Int(number) => Some(number.to_string()),
            _ => None,
        };
        parts.iter().map(text).collect()
    }
}

pub(super) fn read(bytes: &[u8]) -> Read {
    read_nested(bytes, 0)
}

fn read_nested(bytes: &[u8], depth: usize) -> Read {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Read::Part };
    if depth > 90 || end == 0 {
        return Read::Garbage;
    }
    let (line, head) = (&bytes[1..end], end + 2);
    let number = std::str::from_utf8(line).ok().and_then(|text| text.trim().parse::<i64>().ok());
    match (bytes[0], number) {
        (b'+', _) => Read::Whole(Resp::Text(line.to_vec()), head),
        (b'-', _) => Read::Whole(Resp::Error(line.to_vec()), head),
        (b':', Some(number)) => Read::Whole(Resp::Int(number), head),
        (b'_', _) => Read::Whole(Resp::Nil, head),
        (b'$' | b'*' | b'~', Some(number)) if number < 0 => Read::Whole(Resp::Nil, head),
        (b',' | b'#' | b'(', _) => Read::Whole(Resp::Other, head),
        (b'$', Some(length)) => bulk(bytes, head, length as usize),
        (b'*' | b'~', Some(count)) => array(bytes, head, count as usize, depth),
        (b'%', Some(count)) if count >= 0 => {
            array(bytes, head, (count as usize).saturating_mul(2), depth)
        }
        (b'|', Some(count)) if count >= 0 => {
            after(bytes, array(bytes, head, (count as usize).saturating_mul(2), depth))
        }
        (b'>', Some(count)) if count >= 0 => {
            after(bytes, array(bytes, head, count as usize, depth))
        }
        _ => Read::Garbage,
    }
}

/// What follows something that is no answer itself.
fn after(bytes: &[u8], skipped: Read) -> Read {
    let Read::Whole(_, length) = skipped else { return skipped };
    match read(&bytes[length..]) {
        Read::Whole(reply, rest) => Read::Whole(reply, length + rest),
        other => other,
    }
}

fn bulk(bytes: &[u8], head: usize, length: usize) -> Read {
    let Some(end) = head.checked_add(length).filter(|end| *end < usize::MAX - 2) else {
        return Read::Garbage;
    };
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Read::Whole(Resp::Text(bytes[head..end].to_vec()), end + 2),
        Some(_) => Read::Garbage,
        None => Read::Part,
    }
}

fn array(bytes: &[u8], head: usize, count: usize, depth: usize) -> Read {
    let (mut parts, mut at) = (Vec::new(), head);
    for _ in 0..count {
        match read_nested(&bytes[at..], depth + 1) {
            Read::Whole(part, length) => {
                parts.push(part);
                at += length;
            }
            other => return other,
        }
    }
    Read::Whole(Resp::Array(parts), at)
}

#[test]
fn replies_are_read_with_their_lengths() {
    let text = |text: &str| Resp::Text(text.as_bytes().to_vec());
    let cases: [(&[u8], Read); 6] = [
        (b"+OK\r\n:1\r\n", Read::Whole(text("OK"), 5)),
        (b"*2\r\n$1\r\na\r\n:-1\r\n", Read::Whole(Resp::Array(vec![text("a"), Resp::Int(-1)]), 16)),
        (b"$-1\r\n", Read::Whole(Resp::Nil, 5)),
        (b"$5\r\nabc", Read::Part),
        (b"*1\r\n", Read::Part),
        (b"hello\r\n", Read::Garbage),
    ];
    for (bytes, read) in cases {
        assert_eq!(super::resp::read(bytes), read, "{}", bytes.escape_ascii());
    }
}
