//! Phone numbers, as every channel writes them.

/// Whether this is a phone number in the form of E.164.
pub fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_form() {
        let check = |text: &str, expected: bool| assert_eq!(is_number(text), expected, "{text}");
        check("+15550001111", true);
        check("15550001111", false);
        check("+1 555 000 1111", false);
        check("+", false);
        check("anonymous", false);
        check("client:ann", false);
    }
}
