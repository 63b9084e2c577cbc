//! What holds for every input of what has an inverse or an oracle: tokens,
//! signatures, texts that are cut.

use model::time::Moment;
use proptest::prelude::*;

use crate::contract::posted;
use crate::parts;
use crate::signature::{Keys, WebhookSecret, verify_webhook};
use crate::slack::mrkdwn;
use crate::token::Purpose;

fn keys() -> Keys {
    Keys::new(vec![vec![1; 32]]).unwrap()
}

fn without_spaces(text: &str) -> String {
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

/// Text as people write it, with line ends, signs of many bytes and of several characters.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zäß .,!?]{0,40}",
        1 => "\\PC{0,20}",
        1 => "[\\n \u{300}\u{200d}\u{1f3fd}\u{1f469}\u{1f1e9}\u{4e2d}\u{3002}]{0,30}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_token_says_what_it_was_made_of(says in "[A-Za-z0-9_-]{0,40}", until_s in 0..4_000_000_000_i64, off_s in -5_000..5_000_i64, at: prop::sample::Index) {
        let purpose = Purpose { name: "test", account: "a" };
        let token = purpose.token(&keys(), &says, Moment::from_ms(until_s * 1000));
        let read = purpose.read(&keys(), &token, Moment::from_ms((until_s + off_s) * 1000));
        prop_assert_eq!(read.ok(), (off_s <= 0).then_some(says.as_str()));
        // Another sign anywhere makes it foreign.
        let mut forged = token.clone().into_bytes();
        let at = at.index(forged.len());
        forged[at] = if forged[at] == b'7' { b'2' } else { b'7' };
        let forged = String::from_utf8(forged).unwrap();
        prop_assert!(purpose.read(&keys(), &forged, Moment::from_ms(0)).is_err());
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else(
        id in "[!-~]{1,40}",
        body in proptest::collection::vec(any::<u8>(), 0..200),
        at_s in 1_000_000..4_000_000_000_i64,
        off_s in -400..400_i64,
        more: u8,
    ) {
        let secret = WebhookSecret::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let secrets = [secret];
        let mut input = posted(&body);
        let headers = secrets[0].sign(&id, Moment::from_ms(at_s * 1000), &body);
        input.headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
        input.received_at = Moment::from_ms((at_s + off_s) * 1000);
        prop_assert_eq!(verify_webhook(&secrets, &input).is_ok(), off_s.abs() <= 300);
        input.received_at = Moment::from_ms(at_s * 1000);
        input.body = [body.as_slice(), &[more]].concat().into();
        prop_assert!(verify_webhook(&secrets, &input).is_err());
    }

    #[test]
    fn a_text_in_parts_is_the_text(text in any_text(), max in 2..60_usize) {
        for (parts, size) in [
            (parts::split(&text, max), (|part: &str| part.encode_utf16().count()) as fn(&str) -> usize),
            (parts::split_bytes(&text, max.max(4)), str::len),
        ] {
            prop_assert!(parts.iter().all(|part| size(part) <= max.max(4)), "{parts:?}");
            prop_assert!(parts.len() == 1 || parts.iter().all(|part| !part.is_empty()), "{parts:?}");
            prop_assert_eq!(without_spaces(&parts.concat()), without_spaces(&text));
            if size(&text) <= max {
                prop_assert_eq!(parts, vec![text.clone()]);
            }
        }
    }

    #[test]
    fn what_slack_reads_is_what_we_wrote(text in "\\PC{0,60}|[&<>a-z;|@#!]{0,60}") {
        prop_assert_eq!(mrkdwn::plain(&mrkdwn::escaped(&text)), text);
    }
}
