//! The user's own text within messages. Messages go into logs, status conditions and terminals; what a
//! manifest holds must neither break their lines nor flood them.

/// A piece of the user's text, in backticks, without what would break a line of a log.
pub(crate) fn quote(text: &str) -> String {
    format!("`{}`", printable(text, 60))
}

/// A text without what would break a line of a log, and not longer than a person reads.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut short = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == max {
            short.push('…');
            break;
        }
        if c.is_control() {
            short.extend(c.escape_default())
        } else {
            short.push(c)
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_text_cannot_break_a_line() {
        assert_eq!(quote("a\nb\u{1b}[31m"), "`a\\nb\\u{1b}[31m`");
        assert_eq!(quote(&"x".repeat(1000)).chars().count(), 63);
    }
}
