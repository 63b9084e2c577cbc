//! Slack's way to write text (<https://docs.slack.dev/messaging/formatting-message-text>):
//! three escaped signs, and links, people and channels between `<` and `>`.

use std::borrow::Cow;

/// As people read it.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        plain.push_str(&unescaped(before));
        // Every `<` of the sender's own is escaped, so what has no end stays as it is.
        let Some(end) = after.find('>') else {
            plain.push('<');
            rest = after;
            break;
        };
        plain.push_str(&unescaped(&reference(&after[..end])));
        rest = &after[end + 1..];
    }
    plain.push_str(&unescaped(rest));
    plain
}

/// As Slack wants it from us.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What stands between `<` and `>`: `@U1`, `#C1|name`, `!here`, `https://…|label`.
fn reference(inner: &str) -> Cow<'_, str> {
    let (target, label) = match inner.split_once('|') {
        Some((target, label)) => (target, Some(label).filter(|label| !label.is_empty())),
        None => (inner, None),
    };
    let Some(sign) = target.chars().next() else {
        return Cow::Borrowed("");
    };
    match (sign, label) {
        ('@', Some(name)) => Cow::Owned(format!("@{}", name.trim_start_matches('@'))),
        ('#', Some(name)) => Cow::Owned(format!("#{}", name.trim_start_matches('#'))),
        ('@' | '#', None) => Cow::Borrowed(target),
        // A date, a group of people: what stands for it where it is not understood.
        ('!', Some(label)) => Cow::Borrowed(label),
        ('!', None) => Cow::Owned(format!("@{}", target[1..].split('^').next().unwrap_or_default())),
        (_, None) => Cow::Borrowed(bare(target)),
        (_, Some(label)) if label == bare(target) || target.ends_with(label) => Cow::Borrowed(bare(target)),
        (_, Some(label)) => Cow::Owned(format!("{label} ({})", bare(target))),
    }
}

/// An address without the scheme that Slack puts before it.
fn bare(target: &str) -> &str {
    let address = target.strip_prefix("mailto:").or(target.strip_prefix("tel:"));
    address.unwrap_or(target)
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    // `&amp;lt;` is what somebody wrote as `&lt;`.
    Cow::Owned(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_people_read_them() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected, "{text}");
        check("", "");
        check("Where is my *bike*?", "Where is my *bike*?");
        check("1 &lt; 2 &amp;&amp; 3 &gt; 2", "1 < 2 && 3 > 2");
        check("&amp;lt;b&amp;gt;", "&lt;b&gt;");
        check("<@U1> hello <@U2|ann>", "@U1 hello @ann");
        check("in <#C1|general> and <#C2>", "in #general and #C2");
        check(
            "<!here> <!subteam^S1|@desk> <!subteam^S2> <!channel|channel>",
            "@here @desk @subteam channel",
        );
        check("<!date^1392734382^{date}|18 February>", "18 February");
        check("<https://example.com/a?b=1&amp;c=2>", "https://example.com/a?b=1&c=2");
        check(
            "see <https://example.com|our page>",
            "see our page (https://example.com)",
        );
        check("<http://example.com|example.com>", "http://example.com");
        check("<mailto:ann@example.com|ann@example.com>", "ann@example.com");
        check("<tel:+1555|+1555>", "+1555");
        check("a < b < &lt;", "a < b < <");
        check("<", "<");
        check("<>", "");
        check("<|>", "");
        check("<!>", "@");
        check("ü<ü>ü", "üüü");
    }

    #[test]
    fn what_we_write_means_itself() {
        let check = |text: &str, expected: &str| {
            assert_eq!(escaped(text), expected);
            assert_eq!(plain(expected), text);
        };
        check("A & B <b> > &lt;", "A &amp; B &lt;b&gt; &gt; &amp;lt;");
        check("<@U1> <!channel>", "&lt;@U1&gt; &lt;!channel&gt;");
    }
}
