//! Links to the bot (<https://core.telegram.org/bots/features#deep-linking>): each is
//! made for one conversation, and whoever opens it is that conversation's contact.

use model::evidence::Opened;
use model::id::ConversationId;
use model::time::Moment;

use crate::channel::Invitation;
use crate::signature::Keys;
use crate::token::Purpose;

const PURPOSE: &str = "telegram-start";
const GOOD_FOR_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// What makes and reads the links of one bot.
pub struct Links {
    pub keys: Keys,
    /// The account, by its name in the settings.
    pub account: String,
}

impl Links {
    /// A link to the bot of this name.
    pub fn to(&self, username: &str, conversation: &ConversationId, now: Moment) -> Invitation {
        let until = now.plus_ms(GOOD_FOR_MS);
        // Without the prefix, which has a character that `start` does not carry.
        let token = self.purpose().token(&self.keys, conversation.bare(), until);
        Invitation {
            url: format!("https://t.me/{username}?start={token}"),
            until,
        }
    }

    /// For which conversation the link was made that brought this parameter. None of
    /// ours: it may be anybody's, for campaigns use them too.
    pub fn opened(&self, parameter: &str, at: Moment) -> Option<Opened> {
        let bare = self.purpose().read(&self.keys, parameter, at).ok()?;
        let id = ConversationId::parse(&format!("{}{bare}", ConversationId::PREFIX));
        id.map(Opened::Conversation)
    }

    fn purpose(&self) -> Purpose<'_> {
        Purpose {
            name: PURPOSE,
            account: &self.account,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::id::MessageId;

    use super::*;

    #[test]
    fn a_link_names_its_conversation_and_fits() {
        let links = |account: &str, key: u8| Links {
            keys: Keys::new(vec![vec![key; 32]]).unwrap(),
            account: account.to_owned(),
        };
        let conversation = ConversationId::begun_by(&MessageId::authored("agnes", "1"));
        let made_at = Moment::from_ms(1_800_000_000_000);
        let Invitation { url, until } = links("bot", 1).to("bikes_bot", &conversation, made_at);
        let token = url.strip_prefix("https://t.me/bikes_bot?start=").unwrap();
        assert!(token.len() <= 64, "{token}");
        let opened = Some(Opened::Conversation(conversation));
        let check = |links: Links, token: &str, at: Moment, expected: &Option<Opened>| {
            assert_eq!(links.opened(token, at), *expected, "{token} {at}");
        };
        check(links("bot", 1), token, made_at, &opened);
        check(links("bot", 1), token, until, &opened);
        // Expired, of another bot, of another installation, altered, of somebody else.
        check(links("bot", 1), token, until.plus_ms(1), &None);
        check(links("another", 1), token, made_at, &None);
        check(links("bot", 2), token, made_at, &None);
        let first = if token.starts_with('a') { "b" } else { "a" };
        check(links("bot", 1), &format!("{first}{}", &token[1..]), made_at, &None);
        check(links("bot", 1), "promo42", made_at, &None);
        check(links("bot", 1), "", made_at, &None);
    }
}
