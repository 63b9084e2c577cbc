//! What holds for every input of what has an inverse or an oracle, where no file of
//! its own says so.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::file::{Wanted, safe_name, wanted};
use crate::html::clean;
use crate::template::Template;

/// HTML as people, programs and attackers write it.
fn any_html() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<p>".to_owned()),
        Just("</p>".to_owned()),
        Just("<table><tr><td>".to_owned()),
        Just("<a href=\"https://example.com/?a=1&b=2\" onclick=x>".to_owned()),
        Just("<img src=cid:1@x><img src=\"http://x/y\">".to_owned()),
        Just("<script>alert(1)</script>".to_owned()),
        Just("<style>p{}</style><!-- c -->".to_owned()),
        Just("&lt;b&gt;&amp;amp;&nbsp;".to_owned()),
        "</?(b|i|div|li|ul|br|svg|math|title|noscript)/?>",
        "[a-zä <>&\"'=/]{0,20}",
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn clean_html_is_clean(html in any_html()) {
        let once = clean(&html).html.unwrap();
        let twice = clean(&once).html.unwrap();
        prop_assert_eq!(&once, &twice);
        // What stands outside of brackets is text.
        for tag in once.split('<').filter_map(|piece| piece.split_once('>')).map(|(tag, _)| tag) {
            prop_assert!(!tag.starts_with("script") && !tag.contains(" onclick=") && !tag.contains("src=\"http"), "{tag}");
        }
    }

    #[test]
    fn names_are_safe_at_once(name in "\\PC{0,300}|[./\\\\ a-z\u{202e}\u{0}]{0,30}") {
        let once = safe_name(&name);
        prop_assert_eq!(&safe_name(&once), &once);
        prop_assert!(!once.is_empty() && !once.contains(['/', '\\', '\0']));
    }

    #[test]
    fn a_template_is_read_from_its_fields(name in ".{0,20}", language in ".{0,8}", parameters in proptest::collection::vec(".{0,10}", 0..51)) {
        let template = Template { name, language, parameters };
        prop_assert_eq!(Template::of_fields(&template.to_fields()), Some(template));
        prop_assert_eq!(Template::of_fields(&BTreeMap::new()), None);
    }

    /// Against a file of so many bytes, each looked at.
    #[test]
    fn a_range_is_what_it_says(first in prop::option::of(0..20_u64), last in prop::option::of(0..20_u64), size in 0..16_u64) {
        let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let header = format!("bytes={}-{}", text(first), text(last));
        let is_asked = |at: &u64| match (first, last) {
            (Some(first), Some(last)) => (first..=last).contains(at),
            (Some(first), None) => *at >= first,
            (None, Some(count)) => *at + count >= size,
            (None, None) => true,
        };
        let asked: Vec<u64> = (0..size).filter(is_asked).collect();
        let is_range = first.is_some() || last.is_some();
        let is_backwards = matches!((first, last), (Some(first), Some(last)) if first > last);
        let expected = match (asked.first(), asked.last()) {
            _ if is_backwards || !is_range => Wanted::Whole,
            (Some(first), Some(last)) => Wanted::Part(*first..last + 1),
            _ => Wanted::Nothing,
        };
        prop_assert_eq!(wanted(Some(&header), size), expected);
    }
}
