//! Small changes that readers of input have stumbled over before.

use crate::support::dice::Dice;

/// What no door takes as it is has this many bytes at most.
const LONGEST: usize = 70_000;

const TOKENS: [&[u8]; 30] = [
    b"\0",
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b"'",
    b"\"",
    b"\\",
    b"%",
    b"{}",
    b"$1",
    b"@",
    b":",
    b"/",
    b"-",
    b"=",
    b"0",
    b"-1",
    b"1e309",
    b"NaN",
    b"2147483648",
    b"18446744073709551615",
    b"18446744073709551616",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\\u0000",
    "\u{10FFFF}".as_bytes(),
    "\u{2028}\u{202e}".as_bytes(),
    b"\x1b[31m",
];

/// Changes inputs, with pieces of all of them.
pub(super) struct Mutator {
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    pub(super) fn new(corpus: Vec<Vec<u8>>) -> Self {
        Self { corpus }
    }

    /// One to four changes.
    pub(super) fn mutate(&self, bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=dice.below(4) {
            self.change(&mut bytes, dice);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&self, bytes: &mut Vec<u8>, dice: &mut Dice) {
        let length = bytes.len() as u64;
        let (from, to) = {
            let (a, b) = (dice.below(length + 1) as usize, dice.below(length + 1) as usize);
            (a.min(b), a.max(b))
        };
        match dice.below(9) {
            0 if from < bytes.len() => bytes[from] ^= 1 << dice.below(8),
            1 if from < bytes.len() => bytes[from] = dice.below(256) as u8,
            2 => drop(bytes.drain(from..to.min(from + 1 + dice.below(8) as usize))),
            3 => drop(bytes.drain(from..to)),
            4 => {
                let piece = bytes[from..to].to_vec();
                bytes.splice(from..from, piece);
            }
            5 => {
                let times = 1 << dice.below(14);
                let piece = bytes[from..to.min(from + 8)].repeat(times);
                bytes.splice(from..from, piece);
            }
            6 => {
                let other = &self.corpus[dice.below(self.corpus.len() as u64) as usize];
                let begin = dice.below(other.len() as u64 + 1) as usize;
                let end = other.len().min(begin + dice.below(40) as usize);
                bytes.splice(from..to.min(from + 20), other[begin..end].to_vec());
            }
            _ => {
                let token = TOKENS[dice.below(TOKENS.len() as u64) as usize];
                let end = if dice.one_in(2) { from } else { to.min(from + token.len()) };
                bytes.splice(from..end, token.to_vec());
            }
        }
    }
}
