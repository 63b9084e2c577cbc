//! HTML that somebody wrote: sanitised for people's eyes, and turned into text.
//!
//! html5ever takes time in the square of the nesting depth and has no cap, and
//! misnested formatting makes it invent elements. So the tags are counted first,
//! by its own tokenizer, which is linear; what is over a cap keeps its text only.

use std::cell::RefCell;

use ammonia::UrlRelative;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};

/// Larger HTML is not sanitised, only its text is kept.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Deeper HTML likewise.
pub const MAX_DEPTH: usize = 256;
/// The text of longer HTML is what stands between its tags, not laid out.
const MAX_LAID_OUT_BYTES: usize = 256 * 1024;

/// Elements that html5ever may make of one document.
const MAX_ELEMENTS: usize = 100_000;
/// Text longer than this many bytes is cut.
const MAX_TEXT_BYTES: usize = 4 * MAX_BYTES;

/// What becomes of HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Without script, and with nothing that loads by itself: images are kept
    /// only where they are `cid:`. `None` if it was too large or too deep.
    pub html: Option<String>,
    /// What it says.
    pub text: String,
}

/// Sanitises HTML and takes its text. Bounded in time and memory for any input.
pub fn clean(html: &str) -> Cleaned {
    if html.len() > MAX_BYTES {
        let scan = Scan::of(&html[..html.floor_char_boundary(MAX_BYTES)]);
        return Cleaned {
            html: None,
            text: tidy(&scan.text),
        };
    }
    let scan = Scan::of(html);
    if scan.is_over {
        return Cleaned {
            html: None,
            text: tidy(&scan.text),
        };
    }
    let sanitised = sanitise(html);
    // Laying out a long word takes the square of its length, and escaping makes
    // words longer.
    let laid_out = if sanitised.len() <= MAX_LAID_OUT_BYTES {
        to_text(&sanitised)
    } else {
        None
    };
    let text = laid_out.unwrap_or(scan.text);
    Cleaned {
        html: Some(sanitised),
        text: tidy(&text),
    }
}

fn sanitise(html: &str) -> String {
    ammonia::Builder::default()
        .url_schemes(["http", "https", "mailto", "tel", "sms", "cid"].into())
        // A relative link would point into whatever page shows it.
        .url_relative(UrlRelative::Deny)
        .add_clean_content_tags(["title"])
        .attribute_filter(|element, attribute, value| match (element, attribute) {
            ("img", "src") => value.starts_with("cid:").then(|| value.into()),
            (_, "cite") => None,
            (_, "colspan" | "rowspan" | "span") => value.parse::<u8>().is_ok().then(|| value.into()),
            _ => Some(value.into()),
        })
        .clean(html)
        .to_string()
}

/// Text of sanitised HTML; `None` if it cannot be laid out.
fn to_text(html: &str) -> Option<String> {
    html2text::config::plain_no_decorate()
        .no_table_borders()
        .allow_width_overflow()
        .no_link_wrapping()
        .string_from_read(html.as_bytes(), 200)
        .ok()
}

/// No trailing blanks, no runs of empty lines, no end without an end.
fn tidy(text: &str) -> String {
    let mut lines = Vec::new();
    let mut is_after_empty = true;
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() && is_after_empty {
            continue;
        }
        is_after_empty = line.is_empty();
        lines.push(line);
    }
    let mut text = lines.join("\n").trim_end().to_owned();
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

/// What one pass over the tokens finds.
struct Scan {
    /// Over the cap of depth or elements.
    is_over: bool,
    /// All text outside of scripts and styles.
    text: String,
}

impl Scan {
    fn of(html: &str) -> Self {
        let tokenizer = Tokenizer::new(Counter::default(), TokenizerOpts::default());
        let input = BufferQueue::default();
        let mut attributes = Attributes::default();
        for piece in pieces(html) {
            input.push_back(StrTendril::from_slice(piece));
            // A script's end makes the tokenizer pause.
            while !input.is_empty() {
                let _ = tokenizer.feed(&input);
            }
            let has_token = std::mem::take(&mut tokenizer.sink.state.borrow_mut().has_token);
            if attributes.is_over(piece, has_token) {
                tokenizer.sink.state.borrow_mut().is_over = true;
                break;
            }
        }
        let state = tokenizer.sink.state.take();
        Self {
            is_over: state.is_over,
            text: state.text,
        }
    }
}

/// What the attributes cost: html5ever compares each with all before it in its tag.
#[derive(Default)]
struct Attributes {
    /// At most so many in the tag that is being read.
    in_tag: u64,
    cost: u64,
}

impl Attributes {
    const MAX_COST: u64 = 300_000_000;

    fn is_over(&mut self, piece: &str, has_token: bool) -> bool {
        let may_separate = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'"' | b'\'');
        let more = piece.bytes().filter(|byte| may_separate(byte)).count() as u64;
        let before = if has_token { 0 } else { self.in_tag };
        self.in_tag = before + more;
        self.cost += self.in_tag.pow(2) - before.pow(2);
        self.cost > Self::MAX_COST
    }
}

/// The text in pieces of about a kilobyte.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(1024.min(rest.len())));
        rest = behind;
        Some(piece)
    })
}

/// Counts at least as deep as html5ever's tree builder will build.
#[derive(Default)]
struct Counter {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    open: Vec<Box<str>>,
    /// Formatting elements that were closed by another's end: the tree builder
    /// opens them again, for every text that follows.
    reopened: usize,
    elements: usize,
    /// Inside an element whose content is text by the specification (its name).
    raw: Option<Box<str>>,
    /// Inside SVG or MathML, where other rules hold: no end tag counts any more.
    is_foreign: bool,
    is_over: bool,
    /// Since it was last asked.
    has_token: bool,
    text: String,
}

impl TokenSink for Counter {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut state = self.state.borrow_mut();
        state.has_token |= !matches!(token, Token::ParseError(_));
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => state.start(&tag),
            Token::TagToken(tag) => state.end(&tag),
            Token::CharacterTokens(text) => state.characters(&text),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

impl State {
    fn start(&mut self, tag: &Tag) {
        let name = &*tag.name;
        self.elements += 1 + self.reopened;
        self.is_over |= self.elements > MAX_ELEMENTS;
        if self.is_over || is_void(name) {
            if is_line(name) {
                self.text.push('\n');
            }
            return;
        }
        if is_line(name) {
            self.text.push('\n');
        }
        if name == "svg" || name == "math" {
            self.is_foreign = true;
        }
        // `<li>` ends the `<li>` before it; old HTML never writes the end.
        while !self.is_foreign && self.open.last().is_some_and(|open| ends(name, open)) {
            self.open.pop();
        }
        if self.raw.is_none() && is_raw(name) {
            self.raw = Some(name.into());
        }
        self.open.push(name.into());
        self.is_over |= self.open.len() + self.reopened > MAX_DEPTH;
    }

    fn end(&mut self, tag: &Tag) {
        let name = &*tag.name;
        if let Some(raw) = &self.raw {
            if **raw != *name {
                return;
            }
            self.raw = None;
        }
        if self.is_foreign || self.is_over {
            return;
        }
        if is_line(name) {
            self.text.push('\n');
        }
        match self.open.iter().rposition(|open| **open == *name) {
            Some(position) => {
                let misnested = self.open.drain(position..).skip(1);
                self.reopened += misnested.filter(|open| is_formatting(open)).count();
            }
            None if is_formatting(name) => self.reopened = self.reopened.saturating_sub(1),
            None => {}
        }
    }

    fn characters(&mut self, text: &str) {
        self.elements += self.reopened;
        self.is_over |= self.elements > MAX_ELEMENTS;
        let is_shown = !matches!(self.raw.as_deref(), Some("script" | "style" | "title"));
        if is_shown && self.text.len() < MAX_TEXT_BYTES {
            self.text.push_str(text);
        }
    }
}

fn is_void(name: &str) -> bool {
    matches!(
        name,
        "area"
            | "base"
            | "br"
            | "col"
            | "embed"
            | "hr"
            | "img"
            | "input"
            | "link"
            | "meta"
            | "param"
            | "source"
            | "track"
            | "wbr"
    )
}

/// Whether a start of `name` also ends `open`.
fn ends(name: &str, open: &str) -> bool {
    match name {
        "p" | "li" | "option" => open == name,
        "dt" | "dd" => matches!(open, "dt" | "dd"),
        "td" | "th" => matches!(open, "td" | "th"),
        "tr" => matches!(open, "td" | "th" | "tr"),
        "thead" | "tbody" | "tfoot" => matches!(open, "td" | "th" | "tr" | "thead" | "tbody" | "tfoot"),
        _ => false,
    }
}

/// Elements that begin a line of text.
fn is_line(name: &str) -> bool {
    matches!(
        name,
        "br" | "p" | "div" | "tr" | "li" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "blockquote" | "pre" | "hr"
    )
}

/// Elements whose content is no markup.
fn is_raw(name: &str) -> bool {
    matches!(
        name,
        "script"
            | "style"
            | "title"
            | "textarea"
            | "xmp"
            | "iframe"
            | "noembed"
            | "noframes"
            | "noscript"
            | "plaintext"
    )
}

/// The specification's formatting elements.
fn is_formatting(name: &str) -> bool {
    matches!(
        name,
        "a" | "b" | "big" | "code" | "em" | "font" | "i" | "nobr" | "s" | "small" | "strike" | "strong" | "tt" | "u"
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn html_is_sanitised_and_read() {
        let check = |html: &str, expected_html: &str, expected_text: &str| {
            let found = clean(html);
            assert_eq!(found.html.as_deref(), Some(expected_html), "{html}");
            assert_eq!(found.text, expected_text, "{html}");
        };
        check("", "", "");
        check("<p>Hello <b>you</b></p>", "<p>Hello <b>you</b></p>", "Hello you");
        check("a<script>alert(1)</script>b", "ab", "ab");
        check("<style>p{}</style><title>T</title>x", "x", "x");
        check("<p onclick=x style='background:url(http://x)'>y</p>", "<p>y</p>", "y");
        check("<img src=\"http://tracker/x.gif\">z", "<img>z", "z");
        check(
            "<img src=\"cid:a@b\" alt=\"photo\">",
            "<img src=\"cid:a@b\" alt=\"photo\">",
            "[photo]",
        );
        check("<img src=\"data:image/png;base64,AA\">z", "<img>z", "z");
        check(
            "<a href=\"javascript:alert(1)\">z</a>",
            "<a rel=\"noopener noreferrer\">z</a>",
            "z",
        );
        check("<a href=\"/inside\">z</a>", "<a rel=\"noopener noreferrer\">z</a>", "z");
        check("<p>one<p>two", "<p>one</p><p>two</p>", "one\n\ntwo");
        check("<td colspan=4000000000>x</td>", "x", "x");
        check("<svg><script>alert(1)</script></svg>ok", "ok", "ok");
        check("&lt;b&gt; &amp; ü", "&lt;b&gt; &amp; ü", "<b> & ü");
    }

    #[test]
    fn what_is_too_deep_keeps_its_text_and_costs_no_time() {
        let check = |name: &str, html: String| {
            let begun = Instant::now();
            let found = clean(&html);
            assert_eq!(found.html, None, "{name}");
            assert!(found.text.contains("end"), "{name}");
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{name}: {:?}",
                begun.elapsed()
            );
        };
        check("divs", format!("{}end", "<div>".repeat(100_000)));
        check("divs and strange ends", format!("{}end", "<div></x>".repeat(50_000)));
        check(
            "divs and commented ends",
            format!("{}end", "<div><!--</div>-->".repeat(30_000)),
        );
        check(
            "divs and quoted ends",
            format!("{}end", "<div a='</div>'>".repeat(30_000)),
        );
        check(
            "divs and ends in styles",
            format!("{}end", "<div><style></div></style>".repeat(30_000)),
        );
        check(
            "groups in a style of an svg",
            format!("<svg><style>{}</style></svg>end", "<g>".repeat(100_000)),
        );
        check(
            "cdata",
            format!("<svg>{}</svg>end", "<g><![CDATA[></g>]]>".repeat(30_000)),
        );
        let formatting: String = (0..20_000).map(|number| format!("<p><b id={number}>x</p>")).collect();
        check("misnested formatting", format!("{formatting}end"));
        let attributes: String = (0..100_000).map(|number| format!("a{number}='>' ")).collect();
        check("attributes", format!("end<p {attributes}>"));
        check("a long one", format!("end{}", " x".repeat(MAX_BYTES)));
    }

    #[test]
    fn what_is_wide_but_flat_is_sanitised_in_time() {
        let check = |name: &str, html: String| {
            let begun = Instant::now();
            let found = clean(&html);
            assert!(found.html.is_some(), "{name}");
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{name}: {:?}",
                begun.elapsed()
            );
        };
        check("paragraphs", "<p>x".repeat(90_000));
        check("list", format!("<ul>{}</ul>", "<li>x".repeat(90_000)));
        check("wide table", format!("<table><tr>{}</table>", "<td>x".repeat(20_000)));
        check(
            "long table",
            format!("<table>{}</table>", "<tr><td>x<td colspan=200>y".repeat(20_000)),
        );
        check("nested tables", format!("{}x", "<table><tr><td>".repeat(60)));
        check(
            "nested tables with columns",
            format!("{}x", "<table><tr><td>y<td>".repeat(60)),
        );
        check("nested quotes", format!("{}x", "<blockquote>".repeat(250)));
        check("nested lists", format!("{}x", "<ul><li>".repeat(120)));
        check("text", "word ".repeat(200_000));
        check("one word", "w".repeat(1_000_000));
        check(
            "an image",
            format!("<img src='data:{}'>", format!("{}/", "a".repeat(63)).repeat(15_000)),
        );
    }
}
