//! Whether a sender is verified: the topmost Authentication-Results (RFC 8601)
//! of a server that settings trust says so (contract C9).
//!
//! Headers are prepended on the way, so only the topmost can be our own server's.
//! If that is another's, or none, nothing counts: whatever stands below may have
//! been written by the sender.

use super::address::Mailbox;
use super::decode;
use super::mime::Headers;

/// A header with more than this is not read.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Whether the one sender of this mail is verified.
///
/// `dmarc` decides where it is given. Otherwise an aligned `dkim` or `spf` pass
/// does: its domain is the sender's, or a parent of it. A subdomain is not
/// enough, since it may be a stranger's where a provider hands them out.
pub fn is_verified(headers: &Headers, senders: &[Mailbox], trusted: &[String]) -> bool {
    // With several senders, servers differ on which of them they looked at.
    let [sender] = senders else {
        return false;
    };
    if headers.all("from").count() != 1 {
        return false;
    }
    let Some((_, domain)) = sender.address.rsplit_once('@') else {
        return false;
    };
    let Some(value) = headers.first("authentication-results") else {
        return false;
    };
    let Some(results) = parse(value) else {
        return false;
    };
    let is_trusted = trusted.iter().any(|id| id.eq_ignore_ascii_case(&results.server));
    is_trusted && results.vouch_for(&domain.to_ascii_lowercase())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Results {
    server: String,
    methods: Vec<Method>,
}

/// `method=result` and its `type.property=value`, all in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Method {
    name: String,
    result: String,
    properties: Vec<(String, String)>,
}

impl Results {
    fn vouch_for(&self, domain: &str) -> bool {
        let mut dmarc = self.of("dmarc").peekable();
        if dmarc.peek().is_some() {
            return dmarc.all(|method| method.passes() && method.property("header.from") == Some(domain));
        }
        let by_dkim = self.of("dkim").any(|method| {
            let signer = method.property("header.d").or_else(|| method.property("header.i"));
            method.passes() && signer.is_some_and(|signer| is_aligned(signer, domain))
        });
        let by_spf = self.of("spf").any(|method| {
            let envelope = method
                .property("smtp.mailfrom")
                .or_else(|| method.property("smtp.mail"));
            method.passes() && envelope.is_some_and(|envelope| is_aligned(envelope, domain))
        });
        by_dkim || by_spf
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Method> {
        self.methods.iter().filter(move |method| method.name == name)
    }
}

impl Method {
    fn passes(&self) -> bool {
        self.result == "pass"
    }

    /// `None` if it is missing, or given twice.
    fn property(&self, name: &str) -> Option<&str> {
        let mut values = self.properties.iter().filter(|(key, _)| key == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }
}

/// `signer` is an address or a domain.
fn is_aligned(signer: &str, domain: &str) -> bool {
    let signer = signer.rsplit_once('@').map_or(signer, |(_, domain)| domain);
    if domain == signer {
        return !signer.is_empty();
    }
    let is_parent = domain.strip_suffix(signer).is_some_and(|rest| rest.ends_with('.'));
    // A top-level domain signs nothing.
    is_parent && signer.contains('.') && !signer.starts_with('.')
}

/// A word, or one of the characters that separate them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Semicolon,
    Equals,
}

/// `authserv-id [version] *(; method[/version] = result *(type.property = value))`.
/// `None` if it is anything else: then it says nothing.
fn parse(value: &[u8]) -> Option<Results> {
    if value.len() > MAX_HEADER_BYTES {
        return None;
    }
    let tokens = tokens(&decode::as_text(value))?;
    let mut sections = tokens.split(|token| *token == Token::Semicolon);
    let mut results = Results::default();
    match sections.next()? {
        [Token::Word(server)] => results.server.clone_from(server),
        [Token::Word(server), Token::Word(version)] if version == "1" => results.server.clone_from(server),
        _ => return None,
    }
    results.methods = sections.filter_map(method).collect();
    Some(results)
}

/// Takes what is whole: a value with an equals sign of its own ends the section.
fn method(section: &[Token]) -> Option<Method> {
    let mut pairs = Vec::new();
    let mut rest = section;
    while let [Token::Word(name), Token::Equals, Token::Word(value), others @ ..] = rest {
        pairs.push((name.to_lowercase(), value.to_lowercase()));
        rest = others;
    }
    let mut pairs = pairs.into_iter();
    let (name, result) = pairs.next()?;
    let name = match name.split_once('/') {
        Some((name, version)) => (version == "1").then(|| name.to_owned())?,
        None => name,
    };
    Some(Method {
        name,
        result,
        properties: pairs.collect(),
    })
}

/// Words, quoted or not, without comments. `None` if a quote or comment never ends.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    let mut comment_depth = 0;
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end_word = |word: &mut String, tokens: &mut Vec<Token>| {
        if !word.is_empty() {
            tokens.push(Token::Word(std::mem::take(word)));
        }
    };
    for character in text.chars() {
        let is_literal = std::mem::take(&mut is_escaped);
        match character {
            '\\' if !is_literal && (is_quoted || comment_depth > 0) => is_escaped = true,
            '(' if !is_quoted && !is_literal => {
                comment_depth += 1;
                end_word(&mut word, &mut tokens);
            }
            ')' if comment_depth > 0 && !is_literal => comment_depth -= 1,
            _ if comment_depth > 0 => {}
            '"' if !is_literal => is_quoted = !is_quoted,
            _ if is_quoted => word.push(character),
            ';' | '=' => {
                end_word(&mut word, &mut tokens);
                tokens.push(if character == ';' {
                    Token::Semicolon
                } else {
                    Token::Equals
                });
            }
            _ if character.is_whitespace() => end_word(&mut word, &mut tokens),
            _ => word.push(character),
        }
    }
    end_word(&mut word, &mut tokens);
    (!is_quoted && comment_depth == 0).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::super::{address, mime};
    use super::*;

    fn verified(headers: &str) -> bool {
        let raw = headers.replace('\n', "\r\n");
        let headers = mime::headers(raw.as_bytes());
        let senders: Vec<Mailbox> = headers.all("from").flat_map(address::list).collect();
        is_verified(&headers, &senders, &["mail.test".to_owned(), "mx.test".to_owned()])
    }

    #[test]
    fn only_the_topmost_word_of_a_trusted_server_counts() {
        let check = |headers: &str, expected: bool| {
            assert_eq!(verified(headers), expected, "{headers}");
        };
        let from = "From: Anna <anna@example.com>\n";
        let pass = "Authentication-Results: mail.test; dmarc=pass header.from=example.com\n";
        let fail = "Authentication-Results: mail.test; dmarc=fail header.from=example.com\n";
        let stranger = "Authentication-Results: elsewhere.test; dmarc=pass header.from=example.com\n";
        check(&format!("{pass}{from}"), true);
        check(&format!("Received: x\n{pass}Received: y\n{from}"), true);
        check(from, false);
        check(&format!("{fail}{from}"), false);
        check(&format!("{stranger}{from}"), false);
        // Forged below, whoever stands above.
        check(&format!("{fail}{pass}{from}"), false);
        check(&format!("{stranger}{pass}{from}"), false);
        check(&format!("{pass}{fail}{from}"), true);
        check(&format!("Authentication-Results: mail.test; none\n{pass}{from}"), false);
        check(&format!("Authentication-Results: (\n{pass}{from}"), false);
        check(&format!("Authentication-Results:\n{pass}{from}"), false);
        check(
            &format!("X-Authentication-Results: mail.test; dmarc=pass header.from=example.com\n{from}"),
            false,
        );
        check(
            &format!("ARC-Authentication-Results: i=1; mail.test; dmarc=pass header.from=example.com\n{from}"),
            false,
        );
        // Another sender than the one that was looked at.
        check(&format!("{pass}From: anna@example.org\n"), false);
        check(&format!("{pass}From: anna@example.com.evil.test\n"), false);
        check(&format!("{pass}From: anna@example.com <eve@evil.test>\n"), false);
        check(&format!("{pass}From: eve@evil.test, anna@example.com\n"), false);
        check(&format!("{pass}From: anna@example.com\nFrom: eve@evil.test\n"), false);
        check(
            &format!("{pass}From: anna@example.com\nFrom: anna@example.com\n"),
            false,
        );
        check(&format!("{pass}From: Anna@EXAMPLE.com\n"), true);
        check(&format!("{pass}From: nobody\n"), false);
        check(pass, false);
        // Lines that are none, and names that only look alike.
        check(&format!("X: y\r{pass}{from}"), false);
        check(&format!("X: y\n {pass}{from}"), false);
        check(&format!("{pass}From: anna@example.com\rFrom: eve@evil.test\n"), false);
        check(&format!("{pass}From: anna@example.com\u{200b}\n"), false);
        check(&format!("{pass}From: anna@ex\u{430}mple.com\n"), false);
        check(&format!("{pass}From: =?utf-8?q?anna=40example.com?=\n"), false);
        check(
            &format!("{pass}From: =?utf-8?q?=3Canna=40example.com=3E?= <eve@evil.test>\n"),
            false,
        );
        check(&format!("{pass}From: \"anna@example.com\" <eve@evil.test>\n"), false);
        check(&format!("{pass}From: <eve@evil.test> <anna@example.org>\n"), false);
        check(
            &format!("{pass}From: friends: anna@example.com, eve@evil.test;\n"),
            false,
        );
        check(&format!("{pass}From: <@evil.test,@example.com:eve@evil.test>\n"), false);
        check(
            &format!("Authentication-Results:\n mail.test;\n\tdmarc=pass\n header.from=example.com\n{from}"),
            true,
        );
        check(
            &format!("AUTHENTICATION-RESULTS: Mail.Test;dmarc=pass header.from=example.com;\n{from}"),
            true,
        );
        check(
            &format!("Authentication-Results: m\u{430}il.test; dmarc=pass header.from=example.com\n{from}"),
            false,
        );
        check(
            &format!("Authentication-Results: mail.test\0; dmarc=pass header.from=example.com\n{from}"),
            false,
        );
        check(
            &format!("Authentication-Results: mail.test.; dmarc=pass header.from=example.com\n{from}"),
            false,
        );
        check(
            &format!("Authentication-Results: (mail.test) evil.test; dmarc=pass header.from=example.com\n{from}"),
            false,
        );
        check(
            &format!("Authentication-Results: evil.test\r mail.test; dmarc=pass header.from=example.com\n{from}"),
            false,
        );
        check(
            &format!(
                "Authentication-Results: mail.test; dmarc=pass (header.from=example.com) header.from=evil.test\n{from}"
            ),
            false,
        );
    }

    #[test]
    fn results_are_read_by_their_grammar() {
        let check = |value: &str, expected: bool| {
            let headers = format!("Authentication-Results: {value}\nFrom: anna@sub.example.com\n");
            assert_eq!(verified(&headers), expected, "{value}");
        };
        let dmarc = "dmarc=pass header.from=sub.example.com";
        check(&format!("mail.test; {dmarc}"), true);
        check(&format!("mail.test 1; {dmarc}"), true);
        check(&format!("mail.test 2; {dmarc}"), false);
        check(&format!("MX.TEST (a; b=\"c\" (d));\n {dmarc}"), true);
        check(&format!("\"mail.test\"; {dmarc};"), true);
        check(&format!("evil.test mail.test; {dmarc}"), false);
        check(&format!("mail.test.evil.test; {dmarc}"), false);
        check(
            "mail.test; dmarc = pass (p=none; x) header.from = \"sub.example.com\"",
            true,
        );
        check(
            "mail.test; DMARC/1=PASS reason=\"ok; dmarc=fail\" header.from=sub.example.com",
            true,
        );
        check("mail.test; dmarc/2=pass header.from=sub.example.com", false);
        check("mail.test; dmarc=pass action=none header.from=sub.example.com", true);
        check("mail.test; dmarc=pass", false);
        check("mail.test; dmarc=pass header.from=example.com", false);
        check(
            "mail.test; dmarc=pass header.from=sub.example.com header.from=evil.test",
            false,
        );
        check("mail.test; dmarc=bestguesspass header.from=sub.example.com", false);
        check("mail.test; xdmarc=pass header.from=sub.example.com", false);
        check("mail.test; (dmarc=pass header.from=sub.example.com)", false);
        check("mail.test; x=\"; dmarc=pass header.from=sub.example.com\"", false);
        // A sender's words inside a value: they stay inside.
        check(
            "mail.test; spf=pass smtp.mailfrom=\"x; dmarc=pass header.from=sub.example.com\"",
            false,
        );
        check("mail.test; dkim=pass header.d=sub.example.com", true);
        check("mail.test; dkim=pass header.d=example.com header.s=x", true);
        check("mail.test; dkim=pass header.i=@example.com", true);
        check("mail.test; dkim=pass header.d=com", false);
        check("mail.test; dkim=pass header.d=", false);
        check("mail.test; dkim=pass header.d=ample.com", false);
        check("mail.test; dkim=pass header.d=mail.sub.example.com", false);
        check(
            "mail.test; dkim=fail header.d=example.com; dkim=pass header.d=example.com",
            true,
        );
        check("mail.test; dkim=pass header.d=evil.test header.i=@example.com", false);
        check("mail.test; spf=pass smtp.mailfrom=bounce@example.com", true);
        check("mail.test; spf=pass smtp.mailfrom=example.com", true);
        check("mail.test; spf=pass smtp.helo=example.com", false);
        check("mail.test; dkim=pass header.d=example.com header.b=ab=; spf=none", true);
        check(
            "mail.test; dkim=pass header.b=ab= header.d=example.com; spf=none",
            false,
        );
        check("mail.test; spf=softfail smtp.mailfrom=anna@example.com", false);
        // DMARC decides where it is given.
        check(
            "mail.test; spf=pass smtp.mailfrom=example.com; dmarc=fail header.from=sub.example.com",
            false,
        );
        check(
            &format!("mail.test; {dmarc}; dmarc=fail header.from=sub.example.com"),
            false,
        );
        check(&format!("mail.test; {dmarc} (never ends"), false);
        check(&format!("mail.test; {dmarc} \"never ends"), false);
        check(&format!("mail.test; {}", "a=b ".repeat(10_000)), false);
    }
}
