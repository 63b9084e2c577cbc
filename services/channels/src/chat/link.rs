//! The way back into a chat from a mail: a link with a token for the page of the site.
//! It goes to one address alone, so whoever opens it reads what goes there; `README.md`
//! says what that is worth.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::id::MessageId;
use model::outbound::Outbound;
use model::time::Moment;
use serde::{Deserialize, Serialize};

use super::session::{self, Visitor};
use crate::channel::WayBack;
use crate::signature::Keys;
use crate::token::Purpose;

const PURPOSE: &str = "chat-resume";
/// From when the mail was written.
const GOOD_FOR_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// In the fragment, which no server and no referrer ever sees.
const PARAMETER: &str = "tributary-chat";

/// What a link says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Link {
    /// Which conversation it opens.
    #[serde(rename = "t")]
    thread: String,
    /// Where the mail went, and nowhere else.
    #[serde(rename = "a")]
    address: String,
    /// The mail.
    #[serde(rename = "m")]
    message_id: MessageId,
}

/// The link of this mail, on this page. `None`: it goes to several, or to no mail
/// address, or the thread is a user's of the site, who comes in by the site's word.
pub(super) fn way_back(
    page: &str,
    words: &str,
    account: &str,
    keys: &Keys,
    thread: &str,
    mail: &Outbound,
) -> Option<WayBack> {
    let [recipient] = mail.recipients.as_slice() else {
        return None;
    };
    if !Visitor::is_anonymous(thread) || !session::is_email(&recipient.address) {
        return None;
    }
    let link = Link {
        thread: thread.to_owned(),
        address: recipient.address.clone(),
        message_id: mail.message_id.clone(),
    };
    let says = URL_SAFE_NO_PAD.encode(serde_json::to_string(&link).ok()?);
    // From when it was written: every attempt to send it sends the same.
    let token = purpose(account).token(keys, &says, mail.created_at.plus_ms(GOOD_FOR_MS));
    Some(WayBack {
        words: words.to_owned(),
        url: format!("{page}#{PARAMETER}={token}"),
    })
}

/// The visitor whom this token lets in again, with the address that it proves.
pub(super) fn visitor(
    account: &str,
    keys: &Keys,
    token: &str,
    now: Moment,
    session_ms: i64,
) -> Result<Visitor, &'static str> {
    let says = purpose(account).read(keys, token, now)?;
    let json = URL_SAFE_NO_PAD.decode(says).unwrap_or_default();
    let link: Link = serde_json::from_slice(&json).map_err(|_| "the link is not ours")?;
    Ok(Visitor {
        thread: link.thread,
        email: Some(link.address),
        email_is_verified: true,
        opened: Some(link.message_id),
        ..Visitor::new(now, session_ms)
    })
}

fn purpose(account: &str) -> Purpose<'_> {
    Purpose { name: PURPOSE, account }
}

#[cfg(test)]
mod tests {
    use model::event::Recipient;
    use model::id::ConversationId;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn mail(addresses: &[&str]) -> Outbound {
        let message_id = MessageId::authored("anna", "1");
        let to = |address: &&str| Recipient {
            role: "to".to_owned(),
            address: (*address).to_owned(),
            name: None,
        };
        Outbound {
            conversation_id: ConversationId::begun_by(&message_id),
            message_id,
            account: "support".to_owned(),
            thread: "t".to_owned(),
            recipients: addresses.iter().map(to).collect(),
            subject: None,
            text: "Yes.".to_owned(),
            html: None,
            attachments: Vec::new(),
            references: Vec::new(),
            quotes: None,
            template: None,
            automatic: false,
            created_at: Moment::from_ms(1_800_000_000_000),
        }
    }

    fn keys() -> Keys {
        Keys::new(vec![vec![1; 32]]).unwrap()
    }

    fn token(thread: &str, addresses: &[&str]) -> Option<String> {
        let page = "https://www.example.com/help?a=b";
        let way = way_back(page, "Go on:", "chat", &keys(), thread, &mail(addresses))?;
        assert!(
            way.url.starts_with("https://www.example.com/help?a=b#tributary-chat="),
            "{}",
            way.url
        );
        way.url.split_once("chat=").map(|(_, token)| token.to_owned())
    }

    #[test]
    fn a_link_lets_its_visitor_in_again_and_verifies_the_address() {
        let token = token("s-1", &["ada@example.com"]).unwrap();
        let at = mail(&[]).created_at;
        let visitor = |account: &str, after_ms: i64| visitor(account, &keys(), &token, at.plus_ms(after_ms), HOUR_MS);
        let found = visitor("chat", GOOD_FOR_MS).unwrap();
        assert_eq!((found.thread.as_str(), found.user.is_none()), ("s-1", true));
        assert_eq!(found.opened, Some(mail(&[]).message_id));
        let [identity] = &found.identities()[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (identity.address.as_str(), identity.verified),
            ("ada@example.com", true)
        );
        assert_eq!(found.until, at.plus_ms(GOOD_FOR_MS + HOUR_MS).as_ms());
        assert_eq!(visitor("chat", GOOD_FOR_MS + 1).unwrap_err(), "the link has expired");
        assert_eq!(visitor("help", 0).unwrap_err(), "the link is not ours");
    }

    #[test]
    fn only_one_address_and_no_user_of_the_site_gets_a_link() {
        assert!(token("s-1", &["ada@example.com"]).is_some());
        for (thread, addresses) in [
            ("s-1", &["ada@example.com", "ben@example.com"][..]),
            ("s-1", &[]),
            ("s-1", &["+49170"]),
            ("u-ada", &["ada@example.com"]),
        ] {
            assert_eq!(token(thread, addresses), None, "{thread} {addresses:?}");
        }
    }

    #[test]
    fn a_link_is_no_session_and_a_session_no_link() {
        let (now, link) = (mail(&[]).created_at, token("s-1", &["ada@example.com"]).unwrap());
        assert!(Visitor::of_token("chat", &keys(), &link, now).is_err());
        let session = Visitor::new(now, HOUR_MS).token("chat", &keys());
        for token in [
            session.clone(),
            session.replace('.', "-"),
            session.replace('.', "-1900000000-"),
        ] {
            assert!(visitor("chat", &keys(), &token, now, HOUR_MS).is_err(), "{token}");
        }
    }
}
