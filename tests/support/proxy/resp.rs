//! Finds where requests and replies of Redis end.

/// Counts whole values of RESP 2 in a stream of bytes.
#[derive(Default)]
pub(super) struct Scanner {
    line: Vec<u8>,
    skip: usize,
    /// Elements that are still to come of each array that is open.
    open: Vec<u64>,
    /// Whole values so far.
    pub(super) values: u64,
}

impl Scanner {
    /// Goes on with `bytes`; returns where the last value ends in them that is whole, if one is.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut end) = (0, None);
        while at < bytes.len() {
            let before = self.values;
            if self.skip > 0 {
                let step = self.skip.min(bytes.len() - at);
                (self.skip, at) = (self.skip - step, at + step);
                if self.skip == 0 {
                    self.close();
                }
            } else {
                self.line.push(bytes[at]);
                at += 1;
                if self.line.ends_with(b"\r\n") {
                    self.header();
                }
            }
            if self.values > before {
                end = Some(at);
            }
        }
        end
    }

    fn header(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line[1..line.len() - 2]).into_owned();
        let count: i64 = text.parse().unwrap_or(-1);
        match line[0] {
            b'$' if count >= 0 => self.skip = count as usize + 2,
            b'*' if count > 0 => self.open.push(count as u64),
            _ => self.close(),
        }
    }

    /// A value is whole, and with it each array that it is the last of.
    fn close(&mut self) {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        self.values += 1;
    }
}

#[test]
fn values_are_counted_however_they_are_cut() {
    let text = b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n+OK\r\n*0\r\n$-1\r\n*2\r\n*1\r\n:1\r\n$0\r\n\r\n";
    for piece in 1..text.len() {
        let mut scanner = Scanner::default();
        text.chunks(piece).for_each(|bytes| _ = scanner.feed(bytes));
        assert_eq!(scanner.values, 5, "in pieces of {piece}");
    }
    assert_eq!(Scanner::default().feed(b"+OK\r\n$5\r\nab"), Some(5));
}
