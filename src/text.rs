//! Numbers, ages and long sentences as people read them. Pure.

use std::time::Duration;

/// Columns that a table for people may take.
pub const COLUMNS: usize = 100;

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `entries`, or `entry` if there is one.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A time in the two units that matter: `12.3 s`, `4 m 10 s`, `3 h 2 m`, `5 d 3 h`.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Breaks a sentence between words so that no line, indented by `indent`, is longer than
/// [`COLUMNS`], unless one word is.
pub fn wrapped(sentence: &str, indent: usize) -> String {
    let (mut text, mut column) = (" ".repeat(indent), indent);
    for word in sentence.split_whitespace() {
        let width = word.chars().count();
        if column > indent && column + 1 + width > COLUMNS {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        }
        if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text
}

/// A name cut in the middle to `columns`, so that both its ends can be seen.
pub fn shortened(name: &str, columns: usize) -> String {
    let length = name.chars().count();
    if length <= columns {
        return name.to_owned();
    }
    let (head, tail) = (columns / 2, columns - columns / 2 - 1);
    let head: String = name.chars().take(head).collect();
    let tail: String = name.chars().skip(length - tail).collect();
    format!("{head}…{tail}")
}

/// Somebody else's words in one line, so that nobody can write into a log or a terminal with them: at most
/// `most` characters, controls escaped.
pub fn line(words: &str, most: usize) -> String {
    let mut shown = words.trim().chars().flat_map(|char| match char {
        '\n' | '\r' | '\t' => vec![' '],
        // What turns the direction of a text hides words as well as a control does.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char.escape_default().collect(),
        _ if char.is_control() => char.escape_default().collect(),
        _ => vec![char],
    });
    let mut text: String = shown.by_ref().take(most).collect();
    text.extend(shown.next().map(|_| '…'));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let shown: Vec<String> =
            [0, 999, 1000, 65_536, 1_234_567].map(grouped).into_iter().collect();
        assert_eq!(shown, ["0", "999", "1,000", "65,536", "1,234,567"]);
        assert_eq!(
            (counted(1, "row", "rows"), counted(0, "row", "rows")),
            ("1 row".into(), "0 rows".into())
        );
    }

    #[test]
    fn ages_have_the_units_that_matter() {
        let shown = [0.04, 59.94, 61.0, 3_600.0, 93_600.0, 864_000.0]
            .map(|seconds| age(Duration::from_secs_f64(seconds)));
        assert_eq!(shown, ["0.0 s", "59.9 s", "1 m 1 s", "1 h 0 m", "1 d 2 h", "10 d 0 h"]);
    }

    #[test]
    fn sentences_are_broken_between_words() {
        let text = wrapped(&"word ".repeat(60), 4);
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|line| line.len() <= COLUMNS && line.starts_with("    word")));
        assert_eq!(wrapped("", 2), "  ");
    }

    #[test]
    fn words_of_others_stay_in_one_line() {
        assert_eq!(line("  größer\r\nals ", 20), "größer  als");
        assert_eq!(line("\u{1b}[2J", 20), "\\u{1b}[2J");
        assert_eq!((line("abcdef", 3), line("abc", 3)), ("abc…".into(), "abc".into()));
        assert_eq!(line("\u{1b}[2J", 3), "\\u{…");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("orders", 6), "orders");
        assert_eq!(shortened("abcdefghij", 5), "ab…ij");
    }
}
