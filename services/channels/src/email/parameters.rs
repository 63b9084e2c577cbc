//! Parameters of header fields (RFC 2045, RFC 2231), and the names of files.

use std::collections::BTreeMap;

use super::decode;

/// Parameters of a Content-Type or Content-Disposition, names in lower case.
pub type Parameters = BTreeMap<String, String>;

/// A header is cut after this many bytes.
const MAX_PARAMETERS_BYTES: usize = 16 * 1024;

/// Media type in lower case and parameters.
pub fn content_type(value: &[u8], default: &str) -> (String, Parameters) {
    let (media_type, parameters) = with_parameters(value);
    let is_whole = media_type
        .split_once('/')
        .is_some_and(|(kind, subkind)| !kind.is_empty() && !subkind.is_empty());
    match is_whole {
        true => (media_type, parameters),
        false if media_type == "text" => ("text/plain".to_owned(), parameters),
        false => (default.to_owned(), parameters),
    }
}

/// The word before the first semicolon in lower case, and the parameters behind it.
pub fn with_parameters(value: &[u8]) -> (String, Parameters) {
    let value = &value[..value.len().min(MAX_PARAMETERS_BYTES)];
    let text = decode::as_text(value).replace(['\r', '\n'], "");
    let mut pieces = split_outside_quotes(&text).into_iter();
    let first = pieces.next().unwrap_or_default();
    let word = first.split([' ', '\t', '(']).find(|word| !word.is_empty());
    let pairs: Vec<(String, String)> = pieces
        .filter_map(|piece| piece.split_once('='))
        .map(|(name, value)| (name.trim().to_lowercase(), unquoted(value.trim())))
        .collect();
    (word.unwrap_or_default().to_lowercase(), joined(pairs))
}

/// A name without any path, control character or excess of length.
pub fn file_name(name: &str) -> Option<String> {
    let name = decode::words(name);
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|character| !character.is_control()).collect();
    let name = name.trim().trim_start_matches('.').trim();
    let name = match name.char_indices().nth(200) {
        None => name.to_owned(),
        Some((cut, _)) => {
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            match extension.len() {
                1..=10 => format!("{}.{extension}", &name[..cut]),
                _ => name[..cut].to_owned(),
            }
        }
    };
    (!name.is_empty()).then_some(name)
}

fn split_outside_quotes(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b';' if !is_quoted => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// Backslashes of Windows paths are no escapes, whatever the standard says.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let inner = inner.split_once("\" (").map_or(inner, |(inner, _)| inner);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

/// Joins the continuations of RFC 2231; an extended parameter goes before a plain one.
fn joined(pairs: Vec<(String, String)>) -> Parameters {
    let mut plain = Parameters::new();
    let mut segments: BTreeMap<String, BTreeMap<u16, (bool, String)>> = BTreeMap::new();
    for (name, value) in pairs {
        let (name, is_encoded) = match name.strip_suffix('*') {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        };
        let (base, index) = match name.rsplit_once('*').map(|(base, index)| (base, index.parse())) {
            Some((base, Ok(index))) => (base, Some(index)),
            _ => (name, None),
        };
        match index {
            None if !is_encoded => {
                plain.entry(base.to_owned()).or_insert(value);
            }
            index => {
                let segments = segments.entry(base.to_owned()).or_default();
                segments.entry(index.unwrap_or(0)).or_insert((is_encoded, value));
            }
        }
    }
    for (name, segments) in segments {
        plain.insert(name, extended(segments));
    }
    plain
}

/// `charset'language'text`, the text in pieces of which some are escaped.
fn extended(segments: BTreeMap<u16, (bool, String)>) -> String {
    let mut label = String::new();
    let mut bytes = Vec::new();
    for (position, (is_encoded, value)) in segments.into_values().enumerate() {
        let mut value = value.as_str();
        if is_encoded
            && position == 0
            && let Some((charset, rest)) = value.split_once('\'')
        {
            label = charset.to_owned();
            value = rest.split_once('\'').map_or(rest, |(_, text)| text);
        }
        match is_encoded {
            true => decode::unescape(value.as_bytes(), b'%', &mut bytes),
            false => bytes.extend_from_slice(value.as_bytes()),
        }
    }
    decode::charset(&label, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_they_are_written() {
        let check = |value: &str, name: &str, expected: &str| {
            let (_, parameters) = with_parameters(value.as_bytes());
            assert_eq!(parameters.get(name).map_or("", String::as_str), expected, "{value}");
        };
        check("text/plain; charset=utf-8", "charset", "utf-8");
        check("text/plain;\r\n\tCharset = \"utf-8\" (comment)", "charset", "utf-8");
        check("multipart/mixed; boundary=\"a;b=c\"", "boundary", "a;b=c");
        check("a/b; name=\"a \\\"b\\\" c.txt\"", "name", "a \"b\" c.txt");
        check("a/b; name=report (1).pdf", "name", "report (1).pdf");
        check("a/b; name*=utf-8'en'%e2%82%ac.txt", "name", "€.txt");
        check("a/b; name=x; name*=iso-8859-1''%fc", "name", "ü");
        check("a/b; name*1=b; name*0=a; name*2=c", "name", "abc");
        check("a/b; name*0*=utf-8''%e2%82; name*1*=%ac; name*2=%41", "name", "€%41");
        check("a/b; name*=%41", "name", "A");
        check("a/b; name*99999=x", "name", "");
        check("a/b; x; =; ;", "", "");
        assert_eq!(content_type(b"TEXT/HTML (x); a=b", "text/plain").0, "text/html");
        assert_eq!(content_type(b"text", "x/y").0, "text/plain");
        assert_eq!(content_type(b"", "message/rfc822").0, "message/rfc822");
    }

    #[test]
    fn file_names_have_no_path() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(file_name(name).as_deref(), expected, "{name}");
        check("a.txt", Some("a.txt"));
        check("../../etc/passwd", Some("passwd"));
        check("C:\\Users\\x\\a.doc", Some("a.doc"));
        check("=?utf-8?b?w7wudHh0?=", Some("ü.txt"));
        check("=?utf-8?q?..=2F..=2Fx?=", Some("x"));
        check(".htaccess", Some("htaccess"));
        check("a\0\r\nb", Some("ab"));
        check("..", None);
        check(" / ", None);
        check("", None);
        let long = file_name(&format!("{}.pdf", "ü".repeat(500))).unwrap();
        assert_eq!(long.chars().count(), 204);
        assert!(long.ends_with(".pdf"));
    }
}
