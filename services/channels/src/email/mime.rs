//! The structure of a mail: headers and parts, in one pass over its lines.
//!
//! Nothing is decoded here and nothing is copied. Time is linear in the size of
//! the mail, memory is bounded by the limits below. A `message/rfc822` part is
//! never entered: a forwarded mail is an attachment.

use super::decode;
use super::parameters::{self, Parameters};

/// Larger mails are not parsed.
pub const MAX_BYTES: usize = 25 * 1024 * 1024;
/// Parts of one mail, containers included.
pub const MAX_PARTS: usize = 1_000;
/// Multiparts inside each other.
pub const MAX_DEPTH: usize = 50;
/// One block of headers.
pub const MAX_HEADER_BYTES: usize = 1024 * 1024;
/// Headers of one mail, those of its parts included.
pub const MAX_HEADERS: usize = 10_000;

/// RFC 2046 allows 70 characters.
const MAX_BOUNDARY_BYTES: usize = 256;
/// RFC 5322 allows a line of 998, so no name is longer.
const MAX_NAME_BYTES: usize = 998;

/// A mail; the first part is the mail itself, the others follow in their order.
#[derive(Debug)]
pub struct Mail<'a> {
    pub parts: Vec<Part<'a>>,
    /// Everything behind the first empty line, as it came.
    pub body: &'a [u8],
}

/// The mail itself, a container or a leaf.
#[derive(Debug)]
pub struct Part<'a> {
    pub headers: Headers<'a>,
    /// `type/subtype` in lower case.
    pub media_type: String,
    /// Parameters of its Content-Type.
    pub parameters: Parameters,
    /// Of a leaf: its content, still encoded.
    pub body: &'a [u8],
    /// Of a container: its parts.
    pub children: Vec<usize>,
}

/// One block of headers, in the order of the mail.
#[derive(Debug, Default)]
pub struct Headers<'a>(Vec<Header<'a>>);

/// One header field as it came.
#[derive(Debug)]
pub struct Header<'a> {
    pub name: &'a [u8],
    /// With its folds, without the end of its last line.
    pub value: &'a [u8],
}

/// A limit that the mail is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    #[error("the mail is larger than 25 MiB")]
    Bytes,
    #[error("the mail has more than 1,000 parts")]
    Parts,
    #[error("the mail has parts more than 50 deep")]
    Depth,
    #[error("a block of headers is larger than 1 MiB")]
    HeaderBytes,
    #[error("the mail has more than 10,000 headers")]
    Headers,
}

/// Finds the parts of a mail.
pub fn parse(raw: &[u8]) -> Result<Mail<'_>, TooMuch> {
    if raw.len() > MAX_BYTES {
        return Err(TooMuch::Bytes);
    }
    let mut scanner = Scanner {
        raw,
        position: 0,
        parts: Vec::new(),
        open: Vec::new(),
        leaf: None,
        headers_left: MAX_HEADERS,
    };
    scanner.begin_part(false)?;
    let body = &raw[scanner.position..];
    scanner.scan()?;
    Ok(Mail {
        parts: scanner.parts,
        body,
    })
}

/// Reads the block of headers at the beginning of `raw` alone: of a mail that
/// stands in another, or of what IMAP gives for `BODY[HEADER.FIELDS]`.
pub fn headers(raw: &[u8]) -> Headers<'_> {
    let mut scanner = Scanner {
        raw,
        position: 0,
        parts: Vec::new(),
        open: Vec::new(),
        leaf: None,
        headers_left: MAX_HEADERS,
    };
    scanner.header_block().unwrap_or_default()
}

impl<'a> Headers<'a> {
    /// All of them.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Header<'a>> {
        self.0.iter()
    }

    /// Those of this name, the topmost first.
    pub fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + 'b {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|header| header.value)
    }

    /// The topmost of this name, as it came.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The topmost of this name, decoded for people.
    pub fn text(&self, name: &str) -> Option<String> {
        self.first(name).map(decode::header_text)
    }

    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

impl<'a> Mail<'a> {
    /// The headers of the mail itself.
    pub fn headers(&self) -> &Headers<'a> {
        &self.parts[0].headers
    }
}

impl Part<'_> {
    pub fn is_container(&self) -> bool {
        !self.children.is_empty()
    }

    /// The decoded content of a leaf.
    pub fn bytes(&self) -> Vec<u8> {
        decode::transfer(
            self.headers.first("content-transfer-encoding").unwrap_or_default(),
            self.body,
        )
    }
}

struct Scanner<'a> {
    raw: &'a [u8],
    position: usize,
    parts: Vec<Part<'a>>,
    /// Containers around this position, the outermost first.
    open: Vec<Container>,
    /// The part whose body this position belongs to, and where that began.
    leaf: Option<(usize, usize)>,
    headers_left: usize,
}

struct Container {
    part: usize,
    /// With the two hyphens before it.
    delimiter: Vec<u8>,
    is_digest: bool,
}

enum Delimiter {
    Next(usize),
    Last(usize),
}

impl<'a> Scanner<'a> {
    fn scan(&mut self) -> Result<(), TooMuch> {
        while let Some(line) = self.line() {
            let start = self.position;
            self.position += line.len();
            match self.delimiter(line) {
                None => {}
                Some(Delimiter::Next(level)) => {
                    self.end_leaf(start);
                    self.open.truncate(level + 1);
                    self.begin_child(level)?;
                }
                Some(Delimiter::Last(level)) => {
                    self.end_leaf(start);
                    self.open.truncate(level);
                }
            }
        }
        self.end_leaf(self.raw.len() + 1);
        Ok(())
    }

    fn begin_child(&mut self, level: usize) -> Result<(), TooMuch> {
        let child = self.parts.len();
        let Container { part, is_digest, .. } = self.open[level];
        self.parts[part].children.push(child);
        self.begin_part(is_digest)
    }

    /// Reads the headers of the next part and prepares for its body.
    fn begin_part(&mut self, is_in_digest: bool) -> Result<(), TooMuch> {
        if self.parts.len() == MAX_PARTS {
            return Err(TooMuch::Parts);
        }
        let headers = self.header_block()?;
        let default = if is_in_digest { "message/rfc822" } else { "text/plain" };
        let (media_type, parameters) =
            parameters::content_type(headers.first("content-type").unwrap_or_default(), default);
        let number = self.parts.len();
        let boundary = parameters.get("boundary").map(|text| text.trim_end().as_bytes());
        if let Some(boundary) = boundary
            && media_type.starts_with("multipart/")
            && (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len())
        {
            if self.open.len() == MAX_DEPTH {
                return Err(TooMuch::Depth);
            }
            self.open.push(Container {
                part: number,
                delimiter: [b"--", boundary].concat(),
                is_digest: media_type == "multipart/digest",
            });
        }
        // A container that turns out to hold no part is a leaf after all.
        self.leaf = Some((number, self.position));
        self.parts.push(Part {
            headers,
            media_type,
            parameters,
            body: &[],
            children: Vec::new(),
        });
        Ok(())
    }

    /// `end`: where the delimiter's line begins; the line end before it is the
    /// delimiter's (RFC 2046).
    fn end_leaf(&mut self, end: usize) {
        if let Some((part, start)) = self.leaf.take() {
            let body = &self.raw[start..end.clamp(start, self.raw.len())];
            self.parts[part].body = if end > self.raw.len() {
                body
            } else {
                without_line_end(body)
            };
        }
    }

    /// The next line with its end; `None` at the end of the mail.
    fn line(&self) -> Option<&'a [u8]> {
        let rest = &self.raw[self.position..];
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |at| at + 1);
        (!rest.is_empty()).then(|| &rest[..end])
    }

    /// Whether the line ends a part of an open container, the innermost first.
    fn delimiter(&self, line: &[u8]) -> Option<Delimiter> {
        if !line.starts_with(b"--") {
            return None;
        }
        let line = line.trim_ascii_end();
        for (level, container) in self.open.iter().enumerate().rev() {
            match line.strip_prefix(container.delimiter.as_slice()) {
                Some(b"") => return Some(Delimiter::Next(level)),
                Some(b"--") => return Some(Delimiter::Last(level)),
                Some(_) | None => {}
            }
        }
        None
    }

    /// Reads headers up to the empty line, to a delimiter, or to a line that is
    /// none: the body then begins there.
    fn header_block(&mut self) -> Result<Headers<'a>, TooMuch> {
        let start = self.position;
        let mut headers: Vec<Header> = Vec::new();
        while let Some(line) = self.line() {
            let content = without_line_end(line);
            if content.is_empty() {
                self.position += line.len();
                break;
            }
            if self.delimiter(line).is_some() {
                break;
            }
            let is_fold = matches!(content[0], b' ' | b'\t');
            if is_fold && let Some(last) = headers.last_mut() {
                // The value goes on over the line end.
                let value_start = last.value.as_ptr() as usize - self.raw.as_ptr() as usize;
                last.value = &self.raw[value_start..self.position + content.len()];
            } else if let Some(header) = header_of(content) {
                self.headers_left = self.headers_left.checked_sub(1).ok_or(TooMuch::Headers)?;
                headers.push(header);
            } else if !(headers.is_empty() && content.starts_with(b"From ")) {
                break;
            }
            self.position += line.len();
            if self.position - start > MAX_HEADER_BYTES {
                return Err(TooMuch::HeaderBytes);
            }
        }
        Ok(Headers(headers))
    }
}

/// `Name: value` of the first line of a header.
fn header_of(content: &[u8]) -> Option<Header<'_>> {
    let window = &content[..content.len().min(MAX_NAME_BYTES + 1)];
    let colon = window.iter().position(|byte| *byte == b':')?;
    let name = content[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then(|| Header {
        name,
        value: content[colon + 1..].trim_ascii_start(),
    })
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `type(child, child)` with the length of each leaf.
    fn outline(mail: &Mail, part: usize) -> String {
        let this = &mail.parts[part];
        let children: Vec<String> = this.children.iter().map(|child| outline(mail, *child)).collect();
        match children.is_empty() {
            true => format!("{}:{}", this.media_type, this.body.escape_ascii()),
            false => format!("{}({})", this.media_type, children.join(" ")),
        }
    }

    #[test]
    fn finds_the_parts_of_well_and_badly_made_mails() {
        let check = |raw: &str, expected: &str| {
            let raw = raw.replace('\n', "\r\n");
            let mail = parse(raw.as_bytes()).unwrap();
            assert_eq!(outline(&mail, 0), expected, "{raw}");
        };
        let mixed = "Content-Type: multipart/mixed; boundary=b\n\n";
        let inner = "Content-Type: multipart/alternative; boundary=bb\n\n";
        check("A: b\n\nhello\n", r"text/plain:hello\r\n");
        check("A: b\n", "text/plain:");
        check("A: b", "text/plain:");
        check("", "text/plain:");
        check(
            &format!("{mixed}preamble\n--b\n\none\n--b\n\ntwo\n--b--\nend"),
            "multipart/mixed(text/plain:one text/plain:two)",
        );
        // The boundary of one is the beginning of the other's; blanks behind it; no end.
        check(
            &format!("{mixed}--b  \n{inner}--bb\n\none\n--bb\n\ntwo\n--bb--\n--b\n\nthree"),
            "multipart/mixed(multipart/alternative(text/plain:one text/plain:two) text/plain:three)",
        );
        // A part that is never ended ends with its container.
        check(
            &format!("{mixed}--b\n{inner}--bb\n\none\n--b\n\ntwo\n--b--\n"),
            "multipart/mixed(multipart/alternative(text/plain:one) text/plain:two)",
        );
        // Boundary in the middle of a line, or longer than it is.
        check(
            &format!("{mixed}--b\n\nvisit --b for\n--bx\n--b--\n"),
            r"multipart/mixed(text/plain:visit --b for\r\n--bx)",
        );
        // Headers without an empty line behind them.
        check(
            &format!("{mixed}--b\nContent-Type: text/html\n--b--\n"),
            "multipart/mixed(text/html:)",
        );
        check(
            &format!("{mixed}--b\nno header\n--b--\n"),
            "multipart/mixed(text/plain:no header)",
        );
        // No part at all, no boundary at all.
        check(&format!("{mixed}only text\n"), r"multipart/mixed:only text\r\n");
        check(
            "Content-Type: multipart/mixed\n\n--b\n\nx\n",
            r"multipart/mixed:--b\r\n\r\nx\r\n",
        );
        check(
            "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n--b--",
            "multipart/digest(message/rfc822:Subject: x)",
        );
        check("From someone Mon Jan 1\nContent-Type: text/html\n\nx", "text/html:x");
    }

    #[test]
    fn headers_keep_their_folds_and_end_where_they_end() {
        let raw = b"Subject: one\r\n two\r\nX-Empty:\r\nto :a\r\nSUBJECT: three\r\n\r\nbody";
        let mail = parse(raw).unwrap();
        let headers = mail.headers();
        assert_eq!(headers.first("subject"), Some(&b"one\r\n two"[..]));
        assert_eq!(headers.all("subject").count(), 2);
        assert_eq!(headers.first("x-empty"), Some(&b""[..]));
        assert_eq!(headers.first("to"), Some(&b"a"[..]));
        assert_eq!(headers.first("from"), None);
        assert_eq!(mail.body, b"body");
        let mail = parse(b"no header at all\r\n\r\nbody").unwrap();
        assert_eq!(mail.headers().iter().count(), 0);
        assert_eq!(mail.body, &b"no header at all\r\n\r\nbody"[..]);
    }

    #[test]
    fn what_is_over_a_limit_is_refused() {
        let check = |raw: String, expected: Option<TooMuch>| {
            assert_eq!(parse(raw.as_bytes()).err(), expected, "{:.80}", raw);
        };
        let mixed = "Content-Type: multipart/mixed; boundary=b\n\n";
        check(format!("{mixed}{}", "--b\n\n".repeat(999)), None);
        check(format!("{mixed}{}", "--b\n\n".repeat(100_000)), Some(TooMuch::Parts));
        let nested = |depth: usize| -> String {
            (0..depth)
                .map(|level| format!("Content-Type: multipart/mixed; boundary={level:04}\n\n--{level:04}\n"))
                .collect()
        };
        check(nested(50), None);
        check(nested(51), Some(TooMuch::Depth));
        check(nested(1_000), Some(TooMuch::Depth));
        check(format!("{mixed}--b\n{mixed}").repeat(1_000), Some(TooMuch::Depth));
        check(format!("A: {}\n", "x".repeat(MAX_HEADER_BYTES - 10)), None);
        check(
            format!("A: {}\n", "x".repeat(MAX_HEADER_BYTES)),
            Some(TooMuch::HeaderBytes),
        );
        check(
            format!("A: x\n{}", " x\n".repeat(MAX_HEADER_BYTES / 3)),
            Some(TooMuch::HeaderBytes),
        );
        check("A:\n".repeat(10_001), Some(TooMuch::Headers));
        check("\n".repeat(MAX_BYTES + 1), Some(TooMuch::Bytes));
    }
}
