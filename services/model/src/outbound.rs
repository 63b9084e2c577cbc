//! What a channel is given to send, and what a channel declares of itself.

use serde::{Deserialize, Serialize};

use crate::conversation::Draft;
use crate::error::Refusal;
use crate::event::{Attachment, Recipient};
use crate::id::{ConversationId, MessageId};
use crate::template::Template;
use crate::time::Moment;

/// A message of ours on its way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outbound {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub account: String,
    /// The channel's own name of the thread, as it came in with [`crate::inbound::Inbound::thread`].
    pub thread: String,
    pub recipients: Vec<Recipient>,
    pub subject: Option<String>,
    pub text: String,
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    /// External ids of the message that this one answers, and of those before
    /// it, oldest first. The last is the parent.
    pub references: Vec<String>,
    /// One of them, or another id that the vendor knows, if it shall be shown as quoted.
    pub quotes: Option<String>,
    /// What is sent instead of `text`, which is for the desk then.
    pub template: Option<Template>,
    /// A rule wrote it, no person (RFC 3834 `auto-replied`).
    pub automatic: bool,
    /// When it was written.
    pub created_at: Moment,
}

/// What others must know of a channel, as a value: nobody asks for its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// Longest text of one message, in characters.
    pub max_chars: Option<u32>,
    /// Media types of a message's body, the preferred first.
    pub formats: Vec<String>,
    /// For how long after the contact's last message a reply is allowed.
    pub reply_window_ms: Option<i64>,
    /// What may be sent outside of it all the same, in words: `an approved template`.
    #[serde(default)]
    pub outside_window: Option<String>,
    /// It sends templates, also outside of the window.
    #[serde(default)]
    pub templates: bool,
    /// It can show another message as quoted.
    #[serde(default)]
    pub quotes: bool,
    /// Sending the same message again reaches the customer at most once (a
    /// vendor's idempotency key; mail with the same Message-ID).
    pub resend_safe: bool,
    /// Attachments can be carried, up to this many bytes in all.
    pub max_attachment_bytes: Option<u64>,
    /// Which ticket a known contact's new message joins, unless the account says otherwise.
    pub join: Join,
    /// Set where the contact looks at the conversation itself, so that a message of
    /// ours has arrived when it is written: nothing has to be sent.
    #[serde(default)]
    pub live: Option<LiveView>,
    /// Scheme of the addresses to which it can write first: a conversation begins
    /// there though the contact has not written by this channel.
    #[serde(default)]
    pub begins: Option<String>,
    /// It makes links by which contacts of other accounts go on here.
    #[serde(default)]
    pub invites: bool,
    /// It has one thread for each address, named by it: what begins at an address
    /// goes on there for ever.
    #[serde(default)]
    pub thread_is_address: bool,
    /// The vendor tells of what we sent as of what others wrote for us, and returns
    /// nothing of ours with it: while its answer is not there, only the words tell.
    #[serde(default)]
    pub bare_echoes: bool,
}

/// What others must know of contacts who look at their conversation live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveView {
    /// Whoever has not looked for so long has left.
    pub away_after_ms: i64,
    /// The account by which answers go to an address of a contact who has left.
    /// `None`: they wait in the conversation.
    #[serde(default)]
    pub mail_account: Option<String>,
}

impl Declaration {
    /// Whether the channel can carry this answer now, if the contact wrote last at
    /// `asked_at`.
    pub fn check(&self, draft: &Draft, asked_at: Option<Moment>, now: Moment) -> Result<(), Refusal> {
        self.carries(&draft.text, &draft.attachments)?;
        if draft.quotes.is_some() && !self.quotes {
            return Err(Refusal::invalid("this channel quotes no messages"));
        }
        match &draft.template {
            Some(template) if self.templates => template.check(),
            Some(_) => Err(Refusal {
                code: "no_templates",
                detail: "this channel has no templates: send a text".to_owned(),
            }),
            None if self.is_open(asked_at, now) => Ok(()),
            None => Err(self.closed(asked_at)),
        }
    }

    /// Whether an answer in own words is allowed now; without `asked_at` the contact
    /// has never written.
    pub fn is_open(&self, asked_at: Option<Moment>, now: Moment) -> bool {
        match (self.reply_window_ms, asked_at) {
            (None, _) => true,
            (Some(window_ms), Some(asked_at)) => now.since_ms(asked_at) <= window_ms,
            (Some(_), None) => false,
        }
    }

    fn closed(&self, asked_at: Option<Moment>) -> Refusal {
        let hours = self.reply_window_ms.unwrap_or_default() / 3_600_000;
        let since = match asked_at {
            Some(asked_at) => format!("and that is from {asked_at}"),
            None => "and there is none".to_owned(),
        };
        let allowed = match &self.outside_window {
            Some(what) => format!("until they write again only {what} may be sent"),
            None => "nothing may be sent until they write again".to_owned(),
        };
        Refusal {
            code: "reply_window_closed",
            detail: format!(
                "this channel allows an answer within {hours} hours of the contact's latest message, {since}: {allowed}"
            ),
        }
    }

    /// Whether a message of this text and these attachments fits into the channel.
    pub fn carries(&self, text: &str, attachments: &[Attachment]) -> Result<(), Refusal> {
        let chars = text.chars().count() as u64;
        if let Some(max) = self.max_chars
            && chars > u64::from(max)
        {
            return Err(Refusal::invalid(format!(
                "the text has {chars} characters; this channel carries at most {max}"
            )));
        }
        let sizes = attachments.iter().map(|attachment| attachment.size_bytes);
        let bytes = sizes.fold(0, u64::saturating_add);
        match self.max_attachment_bytes {
            None if !attachments.is_empty() => Err(Refusal::invalid("this channel carries no attachments")),
            Some(max) if bytes > max => Err(Refusal::invalid(format!(
                "the attachments have {bytes} bytes; this channel carries at most {max}"
            ))),
            None | Some(_) => Ok(()),
        }
    }
}

/// Which ticket a known contact's message joins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// The contact's latest open ticket in the queue, if active within seven days.
    Open,
    #[default]
    /// Only the ticket of the conversation that evidence names (C9).
    Thread,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_carries_what_it_declares() {
        let narrow = Declaration {
            max_chars: Some(4),
            formats: vec!["text/plain".to_owned()],
            reply_window_ms: Some(1_000),
            resend_safe: false,
            max_attachment_bytes: Some(10),
            join: Join::Open,
            ..Declaration::default()
        };
        let wide = Declaration {
            max_chars: None,
            reply_window_ms: None,
            max_attachment_bytes: None,
            ..narrow.clone()
        };
        let draft = |text: &str, sizes: &[u64]| Draft {
            text: text.to_owned(),
            attachments: sizes.iter().map(|size_bytes| file(*size_bytes)).collect(),
            ..Draft::default()
        };
        let check = |declaration: &Declaration, draft: &Draft, waited_ms: i64| {
            let asked_at = Moment::from_ms(0);
            let checked = declaration.check(draft, Some(asked_at), asked_at.plus_ms(waited_ms));
            checked.map_err(|refusal| refusal.code)
        };
        let table = [
            (&narrow, draft("äöüß", &[4, 6]), 1_000, Ok(())),
            (&narrow, draft("äöüßx", &[]), 0, Err("invalid")),
            (&narrow, draft("text", &[4, 7]), 0, Err("invalid")),
            (&narrow, draft("text", &[u64::MAX, 1]), 0, Err("invalid")),
            (&narrow, draft("text", &[]), 1_001, Err("reply_window_closed")),
            (&wide, draft("a longer text", &[]), i64::MAX, Ok(())),
            (&wide, draft("text", &[0]), 0, Err("invalid")),
        ];
        for (declaration, draft, waited_ms, expected) in table {
            assert_eq!(check(declaration, &draft, waited_ms), expected, "{draft:?} {waited_ms}");
        }
    }

    #[test]
    fn a_template_passes_where_own_words_do_not() {
        let template = Draft {
            template: Some(Template {
                name: "order_update".to_owned(),
                language: "en".to_owned(),
                parameters: Vec::new(),
            }),
            ..Draft::default()
        };
        let quoting = Draft {
            quotes: Some("wamid.1".to_owned()),
            ..Draft::default()
        };
        let words = Draft::default();
        let with_templates = Declaration {
            reply_window_ms: Some(3_600_000),
            outside_window: Some("an approved template".to_owned()),
            templates: true,
            quotes: true,
            ..Declaration::default()
        };
        let without = Declaration {
            templates: false,
            quotes: false,
            outside_window: None,
            ..with_templates.clone()
        };
        let (asked_at, later) = (Moment::from_ms(0), Moment::from_ms(3_600_001));
        let check = |declaration: &Declaration, draft: &Draft, asked_at: Option<Moment>, expected: &str| {
            let found = declaration.check(draft, asked_at, later);
            let found = found.map_or_else(
                |refusal| format!("{}: {}", refusal.code, refusal.detail),
                |()| String::new(),
            );
            assert!(
                found.contains(expected) && found.is_empty() == expected.is_empty(),
                "{found}"
            );
        };
        check(&with_templates, &template, Some(asked_at), "");
        check(&with_templates, &template, None, "");
        check(&with_templates, &words, Some(later), "");
        check(&with_templates, &quoting, Some(later), "");
        check(
            &with_templates,
            &words,
            Some(asked_at),
            "only an approved template may be sent",
        );
        check(
            &with_templates,
            &words,
            None,
            "and there is none: until they write again only",
        );
        check(&without, &words, Some(asked_at), "reply_window_closed");
        check(&without, &template, Some(later), "no_templates");
        check(&without, &quoting, Some(later), "quotes no messages");
    }

    fn file(size_bytes: u64) -> Attachment {
        Attachment {
            name: "file".to_owned(),
            media_type: "text/plain".to_owned(),
            size_bytes,
            ..Attachment::default()
        }
    }
}
