//! From bytes as they travel to text: transfer encodings, charsets, encoded
//! words (RFC 2047). Everything is lenient: what cannot be decoded is kept as well
//! as it can be. Time is linear everywhere.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// A header for people is cut after this many bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// So much of an undeclared text is looked at, from where it is not ASCII any more.
const MAX_GUESS_BYTES: usize = 16 * 1024;
/// The same of a header: guessing is slow, and headers are many.
const MAX_HEADER_GUESS_BYTES: usize = 1024;

/// Undoes a Content-Transfer-Encoding. An unknown one leaves the bytes as they are.
pub fn transfer(encoding: &[u8], body: &[u8]) -> Vec<u8> {
    let encoding = encoding.trim_ascii().split(|byte| matches!(byte, b';' | b' ')).next();
    match encoding.unwrap_or_default().to_ascii_lowercase().as_slice() {
        b"base64" => base64(body),
        b"quoted-printable" => quoted_printable(body),
        _ => body.to_vec(),
    }
}

/// Text in the declared charset, or in the one that it looks like: declarations
/// are often missing and sometimes wrong.
pub fn charset(label: &str, bytes: &[u8]) -> String {
    let label = label.trim().split(['*', ' ', '(']).next().unwrap_or_default();
    let declared = Encoding::for_label_no_replacement(label.as_bytes());
    // ISO-2022-JP is ASCII with escapes: valid UTF-8, and not meant so.
    let utf8 = std::str::from_utf8(bytes).ok().filter(|_| !bytes.contains(&0x1b));
    let text = match (declared, utf8) {
        // Western text that happens to be UTF-8 is not to be met.
        (None, Some(text)) => Cow::Borrowed(text),
        (Some(encoding), Some(text)) if encoding == UTF_8 || encoding == WINDOWS_1252 => Cow::Borrowed(text),
        (Some(encoding), None) if encoding == UTF_8 => damaged_utf8(bytes),
        (Some(encoding), None) if encoding == WINDOWS_1252 && bytes.contains(&0x1b) => {
            guess(bytes, MAX_GUESS_BYTES).decode(bytes).0
        }
        (Some(encoding), None) if encoding == UTF_16LE || encoding == UTF_16BE => encoding.decode(bytes).0,
        // In another charset a byte order mark of UTF-16 is two letters.
        (Some(encoding), utf8) => match (encoding.decode_with_bom_removal(bytes), utf8) {
            ((_, true), Some(text)) => Cow::Borrowed(text),
            ((text, _), _) => text,
        },
        (None, None) => guess(bytes, MAX_GUESS_BYTES).decode(bytes).0,
    };
    without_nul(text.strip_prefix('\u{feff}').unwrap_or(&text))
}

/// A header's value for people: unfolded, encoded words decoded, no control characters.
pub fn header_text(value: &[u8]) -> String {
    let value = &value[..value.len().min(MAX_TEXT_BYTES)];
    let text = words(&as_text(value));
    let text: String = text
        .chars()
        .filter(|character| !matches!(character, '\r' | '\n'))
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    text.trim().to_owned()
}

/// A header's value as text, without decoding any words in it.
pub fn as_text(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => guess(value, MAX_HEADER_GUESS_BYTES).decode(value).0,
    }
}

/// Encoded words of a text. Neighbours in the same charset are decoded together,
/// because mailers split characters between them.
pub fn words(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut pending: Option<(String, Vec<u8>)> = None;
    let mut rest = text;
    // Set once no further word can end: keeps the search linear.
    let mut has_more = true;
    while let Some(start) = rest.find("=?").filter(|_| has_more) {
        let (before, from_word) = rest.split_at(start);
        match word(from_word) {
            Word::Whole {
                charset: label,
                bytes,
                length,
            } => {
                let is_neighbour = before.trim_ascii().is_empty();
                match &mut pending {
                    Some((last, collected)) if is_neighbour && last.eq_ignore_ascii_case(&label) => {
                        collected.extend_from_slice(&bytes);
                    }
                    _ => {
                        let was_word = pending.is_some();
                        flush(&mut pending, &mut decoded);
                        if !(was_word && is_neighbour) {
                            decoded.push_str(before);
                        }
                        pending = Some((label, bytes));
                    }
                }
                rest = &from_word[length..];
            }
            Word::None => {
                flush(&mut pending, &mut decoded);
                decoded.push_str(before);
                decoded.push_str("=?");
                rest = &from_word[2..];
            }
            Word::NeverEnds => has_more = false,
        }
    }
    flush(&mut pending, &mut decoded);
    decoded.push_str(rest);
    decoded
}

/// U+0000 never reaches the store.
pub fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

fn guess(bytes: &[u8], max_bytes: usize) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    let says_something = |byte: &u8| !byte.is_ascii() || *byte == 0x1b;
    let start = bytes.iter().position(says_something).unwrap_or(0);
    // With the word that it stands in.
    let window = &bytes[start.saturating_sub(64)..];
    detector.feed(&window[..window.len().min(max_bytes)], true);
    detector.guess(None, Utf8Detection::Allow)
}

/// Declared as UTF-8 and not valid: a few broken characters, or another charset.
fn damaged_utf8(bytes: &[u8]) -> Cow<'_, str> {
    let (text, ..) = UTF_8.decode(bytes);
    let broken = text.chars().filter(|character| *character == '\u{fffd}').count();
    let foreign = text.chars().filter(|character| !character.is_ascii()).count();
    if broken * 2 <= foreign {
        text
    } else {
        guess(bytes, MAX_GUESS_BYTES).decode(bytes).0
    }
}

/// Takes every character of the alphabet and skips all others. Padding ends a
/// group, not the body: some mailers pad every line.
fn base64(body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(body.len() / 4 * 3);
    let (mut bits, mut characters) = (0u32, 0);
    for byte in body.iter().chain(b"=") {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => {
                match characters {
                    2 => decoded.push((bits >> 4) as u8),
                    3 => decoded.extend([(bits >> 10) as u8, (bits >> 2) as u8]),
                    _ => {}
                }
                (bits, characters) = (0, 0);
                continue;
            }
            _ => continue,
        };
        (bits, characters) = (bits << 6 | u32::from(value), characters + 1);
        if characters == 4 {
            decoded.extend([(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]);
            (bits, characters) = (0, 0);
        }
    }
    decoded
}

fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(body.len());
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let content = line.trim_ascii_end();
        let is_soft = content.ends_with(b"=");
        let content = content.strip_suffix(b"=").unwrap_or(content);
        unescape(content, b'=', &mut decoded);
        let end = line
            .iter()
            .rev()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        if !is_soft {
            decoded.extend_from_slice(&line[line.len() - end..]);
        }
    }
    decoded
}

/// `=41` or `%41`; an escape without two digits stands for itself.
pub fn unescape(text: &[u8], escape: u8, decoded: &mut Vec<u8>) {
    let mut at = 0;
    while at < text.len() {
        let digits = (text[at] == escape).then(|| text.get(at + 1..at + 3)).flatten();
        match digits.and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?)) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(text[at]);
                at += 1;
            }
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

enum Word {
    Whole {
        charset: String,
        bytes: Vec<u8>,
        length: usize,
    },
    /// What begins here is no word.
    None,
    /// Neither this one nor a later one ends.
    NeverEnds,
}

/// The encoded word at the beginning of `text`, which begins with `=?`.
fn word(text: &str) -> Word {
    let mut fields = text[2..].splitn(3, '?');
    let (Some(charset), Some(encoding), Some(rest)) = (fields.next(), fields.next(), fields.next()) else {
        return Word::None;
    };
    let is_charset = (1..=64).contains(&charset.len()) && charset.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_charset || !matches!(encoding, "b" | "B" | "q" | "Q") {
        return Word::None;
    }
    let Some(end) = rest.find("?=") else {
        return Word::NeverEnds;
    };
    let content = &rest.as_bytes()[..end];
    let bytes = match encoding {
        "b" | "B" => base64(content),
        _ => {
            let spaced: Vec<u8> = content
                .iter()
                .map(|byte| if *byte == b'_' { b' ' } else { *byte })
                .collect();
            let mut bytes = Vec::new();
            unescape(&spaced, b'=', &mut bytes);
            bytes
        }
    };
    Word::Whole {
        charset: charset.to_owned(),
        bytes,
        length: 2 + charset.len() + 1 + encoding.len() + 1 + end + 2,
    }
}

fn flush(pending: &mut Option<(String, Vec<u8>)>, decoded: &mut String) {
    if let Some((label, bytes)) = pending.take() {
        decoded.push_str(&charset(&label, &bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_encodings_are_undone_leniently() {
        let check = |encoding: &str, body: &str, expected: &str| {
            let decoded = transfer(encoding.as_bytes(), body.as_bytes());
            assert_eq!(String::from_utf8_lossy(&decoded), expected, "{encoding} {body}");
        };
        check("base64", "aGVsbG8gd29ybGQ=", "hello world");
        check("BASE64 ", "aGVs\r\nbG8g\r\nd29ybGQ", "hello world");
        check("base64", "aGVsbG8=\naGVsbG8=", "hellohello");
        check("base64", "aGV!sbG*8gd29ybG?Q=", "hello world");
        check("base64", "a", "");
        check("base64", "", "");
        check("quoted-printable", "a=\r\nb=3D=C3=A9  \r\nc", "ab=é\r\nc");
        check("quoted-printable", "50=% =4 =zz =", "50=% =4 =zz ");
        check("quoted-printable; x", "=41", "A");
        check("7bit", "=41", "=41");
        check("x-uuencode", "=41", "=41");
    }

    #[test]
    fn charsets_are_believed_as_far_as_they_fit() {
        let check = |label: &str, bytes: &[u8], expected: &str| {
            assert_eq!(charset(label, bytes), expected, "{label} {}", bytes.escape_ascii());
        };
        check("utf-8", "Grüße".as_bytes(), "Grüße");
        check("iso-8859-1", b"Gr\xfc\xdfe", "Grüße");
        check("windows-1252", b"\x80 5 \x96 6", "€ 5 – 6");
        check("iso-8859-15", b"\xa4", "€");
        check("iso-2022-jp", b"\x1b$B%F%9%H\x1b(B", "テスト");
        check("us-ascii", b"\x1b$B%F%9%H\x1b(B", "テスト");
        check("gb18030", b"\xb2\xe2\xca\xd4", "测试");
        check("koi8-r", b"\xf4\xc5\xd3\xd4", "Тест");
        // Mislabelled, undeclared, unknown.
        check("iso-8859-1", "Grüße".as_bytes(), "Grüße");
        check("us-ascii", "Grüße".as_bytes(), "Grüße");
        check("shift_jis", "日本語のテキスト".as_bytes(), "日本語のテキスト");
        check("", "Grüße".as_bytes(), "Grüße");
        check("", b"Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln");
        check("utf-8", b"Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln");
        check(
            "utf-8",
            "Größe und Maße, abgeschnitten: ü".as_bytes().split_last().unwrap().1,
            "Größe und Maße, abgeschnitten: \u{fffd}",
        );
        check("x-unknown", b"abc", "abc");
        check("utf-8", b"\xef\xbb\xbfa\0b", "ab");
    }

    #[test]
    fn encoded_words_are_decoded() {
        let check = |text: &str, expected: &str| assert_eq!(header_text(text.as_bytes()), expected, "{text}");
        check("=?utf-8?q?Caf=C3=A9_cr=C3=A8me?=", "Café crème");
        check("=?UTF-8?B?w7xiZXI=?= alles", "über alles");
        check("=?iso-8859-1*de?Q?=FC?=", "ü");
        // A character split between two words, folded.
        check("=?utf-8?b?w7zD?=\r\n =?utf-8?b?vA==?= x", "üü x");
        check("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü");
        check("a =?utf-8?q?b?= c =?utf-8?q?d?= =?iso-8859-1?q?e?= f", "a b c de f");
        check("(=?utf-8?q?b?=)", "(b)");
        check("=?utf-8?q?never ends", "=?utf-8?q?never ends");
        check("=?utf-8?x?a?= =?bad? =?utf-8?q?a?=", "=?utf-8?x?a?= =?bad? a");
        check("=?", "=?");
        check("=?x-unknown?q?abc?=", "abc");
        check("=?utf-8?q?a=0D=0ABcc:_x=00y?=", "aBcc: xy");
        check("\tplain\r\n\ttext ", "plain text");
        check("Grüße", "Grüße");
        assert_eq!(header_text(b"Gr\xfc\xdfe aus K\xf6ln"), "Grüße aus Köln");
    }

    #[test]
    fn a_megabyte_of_words_takes_one_pass() {
        for piece in ["=?", "=?utf-8?q?", "=?utf-8?q?a?=", "=?utf-8?b?w7?= ", "?=", "=?a?b?"] {
            let text = piece.repeat(1024 * 1024 / piece.len());
            assert!(words(&text).len() <= text.len());
        }
    }
}
