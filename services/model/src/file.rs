//! Files that strangers name and type: what each may be called, what it truly
//! is, and under which headers a browser may have it.

use std::ops::Range;

use serde::Deserialize;

/// Longest name of a file, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// So many of its first bytes tell what a file is.
pub const HEAD_BYTES: usize = 8 * 1024;

/// What says nothing of the bytes.
pub const OCTETS: &str = "application/octet-stream";

/// Under these types a file is served; anything else is served as octets. None
/// of them runs a script.
const SERVED_TYPES: &[&str] = &[
    "application/pdf",
    "audio/amr",
    "audio/m4a",
    "audio/mpeg",
    "audio/ogg",
    "audio/x-wav",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/plain",
    "video/mp4",
    "video/webm",
];

/// What files may be taken in, from vendors, visitors and people of the desk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Of one file.
    pub max_bytes: u64,
    /// Of all files of a message together.
    pub max_message_bytes: u64,
    /// True types that are not taken.
    pub refused_types: Vec<String>,
    /// For how long a file may be on its way to us.
    pub fetch_seconds: u64,
}

impl Limits {
    /// The true type of a file (see [`true_type`]), or why it is not taken.
    pub fn check(&self, bytes: &[u8], declared: &str) -> Result<String, String> {
        if bytes.len() as u64 > self.max_bytes {
            return Err(format!("the file is larger than {} bytes", self.max_bytes));
        }
        let found = true_type(&bytes[..bytes.len().min(HEAD_BYTES)], declared);
        match self.refused_types.contains(&found) {
            true => Err(format!("files of the type {found} are not taken")),
            false => Ok(found),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 25 * 1024 * 1024,
            max_message_bytes: 100 * 1024 * 1024,
            refused_types: vec![
                "application/vnd.microsoft.portable-executable".to_owned(),
                "application/x-executable".to_owned(),
                "application/x-mach-binary".to_owned(),
            ],
            fetch_seconds: 60,
        }
    }
}

/// The name without any path, control or bidirectional character, at most
/// [`MAX_NAME_BYTES`] long; its extension is kept.
pub fn safe_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = base.chars().filter(|character| !is_hidden(*character)).collect();
    let plain = plain.trim().trim_end_matches(['.', ' ']);
    match plain {
        "" => "attachment".to_owned(),
        short if short.len() <= MAX_NAME_BYTES => short.to_owned(),
        long => shortened(long),
    }
}

/// Controls, and what turns the direction of reading: `gpj.exe` must not look
/// like `exe.jpg`.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn shortened(name: &str) -> String {
    let extension = match name.rfind('.') {
        Some(at) if name.len() - at <= 16 => &name[at..],
        _ => "",
    };
    let kept = name.floor_char_boundary(MAX_NAME_BYTES - extension.len());
    format!("{}{extension}", &name[..kept])
}

/// What a file is by its first bytes (see [`HEAD_BYTES`]). What its sender declared
/// counts only for text, and only among kinds of text; `None` of it may be given.
pub fn true_type(head: &[u8], declared: &str) -> String {
    if let Some(known) = infer::get(head) {
        return known.mime_type().to_owned();
    }
    if !is_text(head) {
        return OCTETS.to_owned();
    }
    let declared = essence(declared);
    let is_kind_of_text = declared.starts_with("text/") || declared == "application/json";
    match is_kind_of_text && declared != "text/html" {
        true => declared,
        false => "text/plain".to_owned(),
    }
}

/// A media type without parameters, in lower case.
pub fn essence(media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// UTF-8 without control characters; the head may end within a character.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && head.len() >= HEAD_BYTES => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text
        .chars()
        .any(|character| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{c}' | '\u{1b}'))
}

/// Headers under which a browser may have a file that a stranger sent: to be saved
/// under its name, as a type that runs nothing, and never guessed at. `media_type`
/// is the true one, see [`true_type`].
pub fn headers(name: &str, media_type: &str) -> [(&'static str, String); 6] {
    let content_type = match SERVED_TYPES.iter().find(|served| **served == media_type) {
        Some(&"text/plain") => "text/plain; charset=utf-8",
        Some(served) => served,
        None => OCTETS,
    };
    [
        ("content-type", content_type.to_owned()),
        ("content-disposition", disposition(name)),
        ("x-content-type-options", "nosniff".to_owned()),
        ("content-security-policy", "sandbox; default-src 'none'".to_owned()),
        ("cache-control", "private".to_owned()),
        ("accept-ranges", "bytes".to_owned()),
    ]
}

/// RFC 6266: to be saved, under this name; in ASCII for old clients, and as RFC
/// 8187 encodes it.
pub fn disposition(name: &str) -> String {
    let name = safe_name(name);
    let is_plain = |character: char| (' '..='~').contains(&character) && !matches!(character, '"' | '\\' | '%');
    let ascii: String = name.chars().map(|one| if is_plain(one) { one } else { '_' }).collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

/// What a `Range` header asks of a file of this size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: also where several ranges, or none that can be read, are asked for.
    Whole,
    Part(Range<u64>),
    /// 416: nothing of it.
    Nothing,
}

/// Reads a `Range` header (RFC 9110 section 14).
pub fn wanted(range: Option<&str>, size_bytes: u64) -> Wanted {
    let spec = range.and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let part = match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size_bytes),
        (Some(first), None) if last.trim().is_empty() => first..size_bytes,
        (None, Some(last)) if first.trim().is_empty() => size_bytes.saturating_sub(last)..size_bytes,
        _ => return Wanted::Whole,
    };
    match part.is_empty() {
        true => Wanted::Nothing,
        false => Wanted::Part(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe() {
        let check = |name: &str, expected: &str| assert_eq!(safe_name(name), expected, "{name:?}");
        check("bill.pdf", "bill.pdf");
        check("../../etc/passwd", "passwd");
        check("C:\\Users\\a.txt", "a.txt");
        check("größe 1.txt", "größe 1.txt");
        check("a\u{0}b\r\n.txt", "ab.txt");
        check("photo\u{202e}gpj.exe", "photogpj.exe");
        check("name. . .", "name");
        for nothing in ["", ".", "..", "/", " ", "\u{200b}", "a/"] {
            check(nothing, "attachment");
        }
        let long = safe_name(&format!("{}.jpeg", "ü".repeat(300)));
        assert!(long.len() <= MAX_NAME_BYTES && long.ends_with("ü.jpeg"), "{long}");
        assert!(safe_name(&"x".repeat(1_000)).len() <= MAX_NAME_BYTES);
    }

    #[test]
    fn the_bytes_tell_the_type() {
        let check = |head: &[u8], declared: &str, expected: &str| {
            assert_eq!(true_type(head, declared), expected, "{head:?} {declared}");
        };
        check(b"\x89PNG\r\n\x1a\n....", "text/plain", "image/png");
        check(b"\xff\xd8\xff\xe0....", "application/pdf", "image/jpeg");
        check(b"%PDF-1.7\n", "image/png", "application/pdf");
        check(b"<html><script>", "image/png", "text/html");
        check(b"<?xml version='1.0'?><svg/>", "image/svg+xml", "text/xml");
        check(
            b"MZ\x90\x00",
            "image/png",
            "application/vnd.microsoft.portable-executable",
        );
        check(b"a,b\n1,2\n", "text/csv; charset=utf-8", "text/csv");
        check(b"{\"a\": 1}", "application/json", "application/json");
        check(b"plain", "image/png", "text/plain");
        check(b"plain", "text/html", "text/plain");
        check(b"", "image/png", "text/plain");
        check(b"\x00\x01\x02", "text/plain", OCTETS);
        check(b"\xff\xfe\x01", "image/png", OCTETS);
        let mut cut = vec![b'a'; HEAD_BYTES - 1];
        cut.push("ü".as_bytes()[0]);
        check(&cut, "", "text/plain");
    }

    #[test]
    fn what_is_too_large_or_runs_is_not_taken() {
        let limits = Limits {
            max_bytes: 8,
            ..Limits::default()
        };
        let check = |bytes: &[u8], expected: Result<&str, &str>| {
            let found = limits.check(bytes, "");
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(b"text", Ok("text/plain"));
        check(b"123456789", Err("the file is larger than 8 bytes"));
        check(
            b"MZ\x90\x00",
            Err("files of the type application/vnd.microsoft.portable-executable are not taken"),
        );
    }

    #[test]
    fn headers_show_nothing_that_runs() {
        let served = |media_type: &str| headers("a", media_type)[0].1.clone();
        for (media_type, expected) in [
            ("image/png", "image/png"),
            ("text/plain", "text/plain; charset=utf-8"),
            ("text/html", OCTETS),
            ("text/xml", OCTETS),
            ("image/svg+xml", OCTETS),
            ("text/csv", OCTETS),
            ("", OCTETS),
        ] {
            assert_eq!(served(media_type), expected, "{media_type}");
        }
        let headers = headers("a", "image/png");
        let value = |name: &str| headers.iter().find(|(key, _)| *key == name).unwrap().1.as_str();
        assert_eq!(value("x-content-type-options"), "nosniff");
        assert_eq!(value("content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(value("cache-control"), "private");
    }

    #[test]
    fn dispositions_are_quoted_and_encoded() {
        let check = |name: &str, expected: &str| assert_eq!(disposition(name), expected, "{name:?}");
        check("a.pdf", "attachment; filename=\"a.pdf\"; filename*=UTF-8''a.pdf");
        check(
            "gr\"ö\\ße.txt",
            "attachment; filename=\"_e.txt\"; filename*=UTF-8''%C3%9Fe.txt",
        );
        check(
            "a\"b; x=%41\r\n.exe",
            "attachment; filename=\"a_b; x=_41.exe\"; filename*=UTF-8''a%22b%3B%20x%3D%2541.exe",
        );
    }

    #[test]
    fn ranges_are_read() {
        let check = |range: &str, expected: Wanted| assert_eq!(wanted(Some(range), 10), expected, "{range}");
        check("bytes=0-3", Wanted::Part(0..4));
        check("bytes=4-", Wanted::Part(4..10));
        check("bytes=-3", Wanted::Part(7..10));
        check("bytes=-99", Wanted::Part(0..10));
        check("bytes=8-99", Wanted::Part(8..10));
        check("bytes=10-", Wanted::Nothing);
        check("bytes=-0", Wanted::Nothing);
        for whole in [
            "bytes=3-1",
            "bytes=a-b",
            "bytes=",
            "bytes=-",
            "lines=1-2",
            "bytes=0-1,3-4",
            "bytes=+1-2",
        ] {
            check(whole, Wanted::Whole);
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-0"), 0), Wanted::Nothing);
    }
}
