//! Text that is longer than one message of a vendor: cut at the ends of sentences,
//! and sent one part after the other.

use crate::channel::Sent;

/// Where a text may be cut, the best first: behind a paragraph, a sentence, a
/// line, a word.
const CUTS: [fn(&str) -> Option<usize>; 4] = [behind_paragraph, behind_sentence, behind_line, behind_word];

/// The text in parts of at most `max_units` UTF-16 units, which is at least the
/// number of its characters and what most vendors count. Spaces at the cuts are
/// left out; a text that fits is one part, as it is.
pub fn split(text: &str, max_units: usize) -> Vec<String> {
    split_by(text, max_units.max(2), char::len_utf16)
}

/// The same for vendors who count bytes of UTF-8.
pub fn split_bytes(text: &str, max_bytes: usize) -> Vec<String> {
    split_by(text, max_bytes.max(4), char::len_utf8)
}

fn split_by(text: &str, max: usize, size: fn(char) -> usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while rest.chars().map(size).sum::<usize>() > max {
        let fits = &rest[..longest_fitting(rest, max, size)];
        // A part that is nearly empty helps nobody.
        let good = |at: &usize| *at > fits.len() / 4;
        let at = CUTS.iter().find_map(|cut| cut(fits).filter(good)).unwrap_or(fits.len());
        let (part, remainder) = rest.split_at(at);
        push(&mut parts, part);
        rest = remainder.trim_start();
    }
    match parts.is_empty() {
        true => parts.push(rest.to_owned()),
        false => push(&mut parts, rest),
    }
    parts
}

/// What became of the parts of one message, sent in their order.
pub struct Tally {
    parts: usize,
    accepted: usize,
    external_ids: Vec<String>,
}

impl Tally {
    /// Nothing sent of so many parts.
    pub fn of(parts: usize) -> Self {
        Self {
            parts,
            accepted: 0,
            external_ids: Vec::new(),
        }
    }

    /// Counts the next part. `Err`: it did not leave, and that is what became of the
    /// message. If some parts have left already, only a person can say what to do:
    /// sent again, they would come twice.
    pub fn count(&mut self, sent: Sent) -> Result<(), Sent> {
        let error = match sent {
            Sent::Accepted { external_ids } => {
                self.accepted += 1;
                self.external_ids.extend(external_ids);
                return Ok(());
            }
            first if self.accepted == 0 => return Err(first),
            Sent::Refused { error } | Sent::Later { error, .. } | Sent::Broken { error } | Sent::Unknown { error } => {
                error
            }
        };
        let error = format!("{} of {} parts were sent, then: {error}", self.accepted, self.parts);
        Err(Sent::Unknown { error })
    }

    /// All have left.
    pub fn accepted(self) -> Sent {
        Sent::Accepted {
            external_ids: self.external_ids,
        }
    }
}

fn push(parts: &mut Vec<String>, part: &str) {
    let part = part.trim_end();
    if !part.is_empty() {
        parts.push(part.to_owned());
    }
}

/// In bytes; never inside of a character or before what combines with one.
fn longest_fitting(text: &str, max: usize, size: fn(char) -> usize) -> usize {
    let mut left = max;
    let mut end = 0;
    let mut last_whole = 0;
    for (index, character) in text.char_indices() {
        if !joins_the_one_before(character) {
            last_whole = index;
        }
        if size(character) > left {
            // A heap of combining characters without end is cut all the same.
            return if last_whole > 0 { last_whole } else { end };
        }
        left -= size(character);
        end = index + character.len_utf8();
    }
    end
}

/// Combining marks, variation selectors, joiners, skin tones: most of what makes
/// one visible sign of several characters.
fn joins_the_one_before(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{200d}'
        | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0020}'..='\u{e007f}')
}

fn behind_paragraph(text: &str) -> Option<usize> {
    text.rfind("\n\n").map(|at| at + 2)
}

/// `.`, `!`, `?`, `…`, with what closes a quotation, before a space; or an end of
/// a sentence in scripts that write no spaces.
fn behind_sentence(text: &str) -> Option<usize> {
    let mut found = None;
    let mut ends = false;
    for (index, character) in text.char_indices() {
        match character {
            '.' | '!' | '?' | '…' => ends = true,
            '。' | '！' | '？' | '।' | '۔' => {
                ends = true;
                found = Some(index + character.len_utf8());
            }
            '"' | '\'' | '”' | '’' | '»' | '«' | ')' | ']' => {}
            _ if character.is_whitespace() => {
                if ends {
                    found = Some(index + character.len_utf8());
                }
            }
            _ => ends = false,
        }
    }
    found
}

fn behind_line(text: &str) -> Option<usize> {
    text.rfind('\n').map(|at| at + 1)
}

fn behind_word(text: &str) -> Option<usize> {
    let (at, space) = text
        .char_indices()
        .rev()
        .find(|(_, character)| character.is_whitespace())?;
    Some(at + space.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_it_hurts_least() {
        let check = |text: &str, max_units: usize, expected: &[&str]| {
            let found = split(text, max_units);
            assert_eq!(found, expected, "{text:?} {max_units}");
            assert!(
                found.iter().all(|part| part.encode_utf16().count() <= max_units),
                "{found:?}"
            );
        };
        check("", 10, &[""]);
        check("short", 10, &["short"]);
        check("  as it is \n", 20, &["  as it is \n"]);
        check("One two. Three four.", 12, &["One two.", "Three four."]);
        check("Is it? \"Yes!\" she said so.", 16, &["Is it? \"Yes!\"", "she said so."]);
        check("It costs 3.50 EUR in all", 16, &["It costs 3.50", "EUR in all"]);
        check("One. Two.\n\nThree. Four.", 18, &["One. Two.", "Three. Four."]);
        check("first line\nsecond line", 14, &["first line", "second line"]);
        check("one two three", 8, &["one two", "three"]);
        check("abcdefghij", 4, &["abcd", "efgh", "ij"]);
        check("A. bcdefghijk", 10, &["A.", "bcdefghijk"]);
        check("A. bcdefghijklmnop", 16, &["A. bcdefghijklmn", "op"]);
        check("これは一。これは二。", 6, &["これは一。", "これは二。"]);
        check("👍👍👍", 4, &["👍👍", "👍"]);
        check("👍👍👍", 5, &["👍👍", "👍"]);
        check("ae\u{301}b", 2, &["a", "e\u{301}", "b"]);
        check("word          end", 6, &["word", "end"]);
    }

    #[test]
    fn bytes_are_counted_where_a_vendor_does() {
        let check =
            |text: &str, max_bytes: usize, expected: &[&str]| assert_eq!(split_bytes(text, max_bytes), expected);
        check("äöü", 4, &["äö", "ü"]);
        check("👍👍", 7, &["👍", "👍"]);
        check("Schön. Sehr schön.", 12, &["Schön.", "Sehr schön."]);
    }

    #[test]
    fn nothing_but_space_is_lost() {
        let text = "Grüße! Ein Satz, der länger ist als alles.\n\nUnd 😀 noch einer… ".repeat(50);
        for max_units in [2, 3, 7, 40, 160, 1600] {
            let parts = split(&text, max_units);
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(bare(&parts.concat()), bare(&text), "{max_units}");
            assert!(
                parts
                    .iter()
                    .all(|part| part.encode_utf16().count() <= max_units && !part.is_empty())
            );
        }
    }

    #[test]
    fn a_message_is_sent_if_all_its_parts_are() {
        let later = || Sent::Later {
            after: None,
            error: "busy".to_owned(),
        };
        let accepted = |id: &str| Sent::Accepted {
            external_ids: vec![id.to_owned()],
        };
        let mut tally = Tally::of(3);
        assert_eq!(tally.count(later()), Err(later()));
        assert_eq!(tally.count(accepted("a")), Ok(()));
        let error = "1 of 3 parts were sent, then: busy".to_owned();
        assert_eq!(tally.count(later()), Err(Sent::Unknown { error }));
        assert_eq!(tally.count(accepted("b")), Ok(()));
        let all = Sent::Accepted {
            external_ids: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(tally.accepted(), all);
    }
}
