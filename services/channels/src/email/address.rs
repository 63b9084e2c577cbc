//! Addresses in headers (RFC 5322), read as tolerantly as people write them.

use super::decode;

/// An address of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// `local@domain`, sane.
    pub address: String,
    /// What stands before it, decoded.
    pub name: Option<String>,
}

/// RFC 5321: 64 characters, `@`, 255 characters.
const MAX_ADDRESS_BYTES: usize = 320;
const MAX_NAME_CHARS: usize = 200;
/// A header with more than this is cut.
const MAX_HEADER_BYTES: usize = 256 * 1024;

/// The mailboxes of a header; groups are opened, what is no address is left out.
pub fn list(value: &[u8]) -> Vec<Mailbox> {
    let value = &value[..value.len().min(MAX_HEADER_BYTES)];
    // Undecoded: an encoded word may hold commas and brackets of its own.
    let text = decode::as_text(value).replace(['\r', '\n'], "");
    split(&text).iter().filter_map(Entry::mailbox).collect()
}

/// The address in lower case, without what stands behind a `+` in its local part.
pub fn base(address: &str) -> String {
    let address = model::contact::normalise(address);
    match address.rsplit_once('@') {
        Some((local, domain)) => match local.split_once('+') {
            Some((local, _)) if !local.is_empty() => format!("{local}@{domain}"),
            _ => address,
        },
        None => address,
    }
}

/// Whether it can be written to: one `@`, something on both sides, nothing that
/// could be another address or a second line.
pub fn is_sane(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let is_plain = |character: char| {
        !character.is_whitespace() && !character.is_control() && !"<>()[]{},;:\\\"@".contains(character)
    };
    let is_domain = !domain.starts_with(['.', '-']) && !domain.ends_with('.') && !domain.contains("..");
    address.len() <= MAX_ADDRESS_BYTES
        && !local.is_empty()
        && !domain.is_empty()
        && local.chars().all(is_plain)
        && domain.chars().all(is_plain)
        && is_domain
}

/// A header's value without its comments, which may be nested; a quote is text.
pub fn without_comments(value: &[u8]) -> String {
    let value = &value[..value.len().min(MAX_HEADER_BYTES)];
    let mut depth = 0_u32;
    let is_outside = |character: &char| {
        match character {
            '(' => depth += 1,
            ')' if depth > 0 => {
                depth -= 1;
                return false;
            }
            _ => {}
        }
        depth == 0
    };
    decode::as_text(value).chars().filter(is_outside).collect()
}

/// One entry of a list, taken apart.
#[derive(Default)]
struct Entry {
    /// Outside of brackets and comments, quotes removed.
    bare: String,
    bracketed: Option<String>,
    comment: String,
}

impl Entry {
    fn mailbox(&self) -> Option<Mailbox> {
        let (address, name) = match &self.bracketed {
            Some(bracketed) => (bracketed.trim(), self.bare.trim()),
            None => (self.bare.trim(), self.comment.trim()),
        };
        // `<@relay:user@example.org>`, RFC 822's route.
        let address = match address.strip_prefix('@').and_then(|route| route.split_once(':')) {
            Some((_, address)) => address,
            None => address,
        };
        let address = address.trim_start_matches("mailto:");
        let name: String = decode::header_text(name.as_bytes())
            .chars()
            .take(MAX_NAME_CHARS)
            .collect();
        is_sane(address).then(|| Mailbox {
            address: address.to_owned(),
            name: (!name.is_empty() && name != address).then_some(name),
        })
    }
}

/// Splits at commas (and at semicolons, which some write) outside of quotes,
/// comments and brackets; opens groups.
fn split(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let mut comment_depth = 0;
    let (mut is_quoted, mut is_escaped, mut is_bracketed) = (false, false, false);
    for character in text.chars() {
        let is_literal = std::mem::take(&mut is_escaped);
        match character {
            '\\' if !is_literal && (is_quoted || comment_depth > 0) => is_escaped = true,
            _ if comment_depth > 0 => match character {
                '(' if !is_literal => comment_depth += 1,
                ')' if !is_literal => comment_depth -= 1,
                _ => entry.comment.push(character),
            },
            '"' if !is_literal && !is_bracketed => is_quoted = !is_quoted,
            _ if is_quoted => entry.bare.push(character),
            '>' => is_bracketed = false,
            '(' if !is_bracketed => comment_depth = 1,
            '<' if !is_bracketed => {
                is_bracketed = true;
                entry.bracketed = Some(String::new());
            }
            _ if is_bracketed => entry.bracketed.get_or_insert_default().push(character),
            ',' | ';' => entries.push(std::mem::take(&mut entry)),
            ':' if !entry.bare.contains('@') && entry.bare.trim() != "mailto" => entry = Entry::default(),
            _ => entry.bare.push(character),
        }
    }
    entries.push(entry);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_people_write_them() {
        let check = |value: &str, expected: &[(&str, &str)]| {
            let found = list(value.as_bytes());
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|mailbox| (mailbox.address.as_str(), mailbox.name.as_deref().unwrap_or_default()))
                .collect();
            assert_eq!(found, expected, "{value}");
        };
        check("anna@example.com", &[("anna@example.com", "")]);
        check("Anna <anna@example.com>", &[("anna@example.com", "Anna")]);
        check("<anna@example.com> (Anna)", &[("anna@example.com", "")]);
        check(
            "anna@example.com (Anna (Support))",
            &[("anna@example.com", "Anna Support")],
        );
        check(
            "\"Huber, Anna\" <a@b.c>, bob@b.c",
            &[("a@b.c", "Huber, Anna"), ("bob@b.c", "")],
        );
        check("\"a@evil.example\" <c@d.example>", &[("c@d.example", "a@evil.example")]);
        check("a@evil.example <c@d.example>", &[("c@d.example", "a@evil.example")]);
        check("\"An \\\"A\\\" na\" <a@b.c>", &[("a@b.c", "An \"A\" na")]);
        check("=?utf-8?q?Anna=2C_H=C3=BCber?= <a@b.c>", &[("a@b.c", "Anna, Hüber")]);
        check("\"=?utf-8?q?H=C3=BCber?=\" <a@b.c>", &[("a@b.c", "Hüber")]);
        check(
            "friends: a@b.c, Bob <b@b.c>;, d@e.f",
            &[("a@b.c", ""), ("b@b.c", "Bob"), ("d@e.f", "")],
        );
        check("undisclosed-recipients:;", &[]);
        check("a@b.c; d@e.f", &[("a@b.c", ""), ("d@e.f", "")]);
        check("a@b.c,\r\n\td@e.f", &[("a@b.c", ""), ("d@e.f", "")]);
        check("<@relay.example:a@b.c>", &[("a@b.c", "")]);
        check("mailto:a@b.c", &[("a@b.c", "")]);
        check("Anna", &[]);
        check("<>", &[]);
        check("", &[]);
        check("a@", &[]);
        check("@b", &[]);
        check("a b@c.d", &[]);
        check("a@b@c.d", &[]);
        check("<a@b.c", &[("a@b.c", "")]);
        check("\"never ends <a@b.c>", &[]);
        check("(never ends a@b.c", &[]);
        check("<a@b.c\u{0}>", &[]);
        check("<<a@b.c>>", &[]);
        check("<a@b.c> <d@e.f>", &[("d@e.f", "")]);
    }

    #[test]
    fn the_base_of_an_address_has_no_tag() {
        let check = |address: &str, expected: &str| assert_eq!(base(address), expected);
        check(" Support@Example.org ", "support@example.org");
        check("support+tag@example.org", "support@example.org");
        check("support+a+b@example.org", "support@example.org");
        check("+tag@example.org", "+tag@example.org");
        check("none", "none");
    }
}
