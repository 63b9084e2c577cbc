//! What happens to a message after it was written: edited, deleted, reacted to, a
//! call that goes on, files that come later.
//!
//! Changes are kept, each with its own id; how the message stands today is their
//! [`fold`] over what was written first, in the provider's order. So a repeat
//! changes nothing, and neither does the order in which they reach us. A change
//! that comes before its message waits for it.

use serde::{Deserialize, Serialize};

use crate::event::{Attachment, Message};
use crate::id::MessageId;
use crate::time::Moment;

/// What a provider says of a message that stands already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageChange {
    /// One of the message's external ids, within the account.
    pub external_id: String,
    pub change: Change,
}

/// One change of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Change {
    /// It reads otherwise now. Where it reads so already, nothing has happened.
    Edited { text: String, html: Option<String> },
    /// Its author took it back: nothing of it is shown any more.
    Deleted,
    /// Somebody's reactions to it.
    Reacted {
        /// Who: the address of a party, as the channel names it.
        by: String,
        emojis: Vec<String>,
        how: Reacting,
    },
    /// The call that it stands for went on.
    Called(Call),
    /// Files that came later. A file that is there already (by its content or its
    /// source) is not added again.
    AttachmentsAdded { attachments: Vec<Attachment> },
}

/// What [`Change::Reacted`] does to the reactions of that person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reacting {
    /// These are all that they have now.
    Only,
    Added,
    Removed,
}

/// A phone call, as far as is known; what is not set was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub state: Option<CallState>,
    pub duration_s: Option<i64>,
    /// Nobody of us spoke with the caller.
    pub missed: Option<bool>,
    /// What was recorded, in words.
    pub transcription: Option<String>,
}

/// How far a call has come. The order of the variants is the only direction in
/// which it moves; of several ends the last counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    Ringing,
    Answered,
    Completed,
    Busy,
    NoAnswer,
    Cancelled,
    Failed,
}

/// A change as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedChange {
    /// The event's id.
    pub id: String,
    pub account: String,
    pub external_id: String,
    /// `None` while its message has not come.
    pub message_id: Option<MessageId>,
    pub change: Change,
    pub occurred_at: Moment,
    pub received_at: Moment,
    pub provider_sequence: Option<i64>,
}

/// What became of a message since it was written, beside its text and files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// When its author last edited it.
    pub edited_at: Option<Moment>,
    /// When its author took it back.
    pub deleted_at: Option<Moment>,
    pub reactions: Vec<Reaction>,
    pub call: Option<Call>,
}

/// One person's reaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    pub by: String,
    pub emoji: String,
}

/// Reactions that one message shows; more are counted by nobody.
const MAX_REACTIONS: usize = 200;
/// Files of one message.
const MAX_ATTACHMENTS: usize = 200;

impl Change {
    /// As announcements name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Edited { .. } => "edited",
            Self::Deleted => "deleted",
            Self::Reacted { .. } => "reacted",
            Self::Called(_) => "called",
            Self::AttachmentsAdded { .. } => "attachments_added",
        }
    }
}

impl Reacting {
    /// As the wire names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }

    /// The value of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Only, Self::Added, Self::Removed]
            .into_iter()
            .find(|value| value.as_str() == text)
    }
}

impl CallState {
    const ALL: [Self; 7] = [
        Self::Ringing,
        Self::Answered,
        Self::Completed,
        Self::Busy,
        Self::NoAnswer,
        Self::Cancelled,
        Self::Failed,
    ];

    /// As the wire and the API name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::Answered => "answered",
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    fn rank(self) -> u8 {
        match self {
            Self::Ringing => 0,
            Self::Answered => 1,
            Self::Completed | Self::Busy | Self::NoAnswer | Self::Cancelled | Self::Failed => 2,
        }
    }
}

/// How a message stands after these changes, in whatever order they are given.
pub fn fold<'a>(original: &Message, changes: impl IntoIterator<Item = &'a RecordedChange>) -> (Message, Changed) {
    let mut ordered: Vec<&RecordedChange> = changes.into_iter().collect();
    ordered.sort_by_key(|recorded| {
        (
            recorded.provider_sequence.unwrap_or(0),
            recorded.occurred_at,
            recorded.received_at,
            &recorded.id,
        )
    });
    let (mut message, mut changed) = (original.clone(), Changed::default());
    for recorded in ordered {
        changed.take(&recorded.change, recorded.occurred_at, &mut message);
    }
    if changed.deleted_at.is_some() {
        message.text.clear();
        message.html = None;
        message.attachments.clear();
    }
    (message, changed)
}

impl Changed {
    fn take(&mut self, change: &Change, at: Moment, message: &mut Message) {
        match change {
            Change::Edited { text, html } if message.text == *text && message.html == *html => {}
            Change::Edited { text, html } => {
                message.text.clone_from(text);
                message.html.clone_from(html);
                self.edited_at = Some(at);
            }
            Change::Deleted => self.deleted_at = self.deleted_at.or(Some(at)),
            Change::Reacted { by, emojis, how } => self.react(by, emojis, *how),
            Change::Called(call) => self.call.get_or_insert_default().take(call),
            Change::AttachmentsAdded { attachments } => {
                for attachment in attachments {
                    let is_known = message.attachments.iter().any(|known| is_same(known, attachment));
                    if !is_known && message.attachments.len() < MAX_ATTACHMENTS {
                        message.attachments.push(attachment.clone());
                    }
                }
            }
        }
    }

    fn react(&mut self, by: &str, emojis: &[String], how: Reacting) {
        self.reactions.retain(|reaction| {
            let is_meant = how == Reacting::Only || emojis.contains(&reaction.emoji);
            reaction.by != by || !is_meant
        });
        if how == Reacting::Removed {
            return;
        }
        let room = MAX_REACTIONS.saturating_sub(self.reactions.len());
        let added = emojis.iter().take(room).map(|emoji| Reaction {
            by: by.to_owned(),
            emoji: emoji.clone(),
        });
        self.reactions.extend(added);
    }
}

impl Call {
    fn take(&mut self, later: &Call) {
        let is_ahead = |state: CallState| self.state.is_none_or(|known| known.rank() <= state.rank());
        if let Some(state) = later.state.filter(|state| is_ahead(*state)) {
            self.state = Some(state);
        }
        self.duration_s = later.duration_s.or(self.duration_s);
        // That somebody spoke is known for sure, that nobody did only at the end.
        if self.missed != Some(false) {
            self.missed = later.missed.or(self.missed);
        }
        if later.transcription.is_some() {
            self.transcription.clone_from(&later.transcription);
        }
    }
}

fn is_same(known: &Attachment, other: &Attachment) -> bool {
    let same_source = known.source.is_some() && known.source == other.source;
    let same_bytes = !known.sha256.is_empty() && known.sha256 == other.sha256 && known.name == other.name;
    same_source || same_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(id: u32, sequence: Option<i64>, at: i64, change: Change) -> RecordedChange {
        RecordedChange {
            id: format!("evt_{id}"),
            account: "bot".to_owned(),
            external_id: "m1".to_owned(),
            message_id: None,
            change,
            occurred_at: Moment::from_ms(at),
            received_at: Moment::from_ms(at),
            provider_sequence: sequence,
        }
    }

    fn edited(text: &str) -> Change {
        Change::Edited {
            text: text.to_owned(),
            html: None,
        }
    }

    fn reacted(by: &str, emojis: &[&str], how: Reacting) -> Change {
        Change::Reacted {
            by: by.to_owned(),
            emojis: emojis.iter().map(ToString::to_string).collect(),
            how,
        }
    }

    fn file(name: &str, sha256: &str) -> Attachment {
        Attachment {
            name: name.to_owned(),
            media_type: "audio/mpeg".to_owned(),
            size_bytes: 1,
            sha256: sha256.to_owned(),
            ..Attachment::default()
        }
    }

    fn called(call: Call) -> Change {
        Change::Called(call)
    }

    /// Folds in every order; all must agree.
    fn folded(changes: &[RecordedChange]) -> (Message, Changed) {
        let original = Message::of_ours("bot", &MessageId::received("bot", "x", "m1"), "first".to_owned());
        let expected = fold(&original, changes);
        let mut backwards: Vec<&RecordedChange> = changes.iter().collect();
        backwards.reverse();
        assert_eq!(fold(&original, backwards), expected);
        let mut turned: Vec<&RecordedChange> = changes.iter().collect();
        turned.rotate_left(changes.len() / 2);
        assert_eq!(fold(&original, turned), expected);
        expected
    }

    #[test]
    fn the_last_edit_by_sequence_then_time_counts() {
        let check = |changes: &[RecordedChange], text: &str, at: i64| {
            let (message, changed) = folded(changes);
            assert_eq!(message.text, text);
            assert_eq!(changed.edited_at, Some(Moment::from_ms(at)));
        };
        let (a, b) = (edited("a"), edited("b"));
        check(
            &[recorded(1, None, 1, a.clone()), recorded(2, None, 2, b.clone())],
            "b",
            2,
        );
        check(
            &[recorded(1, None, 2, a.clone()), recorded(2, None, 1, b.clone())],
            "a",
            2,
        );
        check(
            &[recorded(1, Some(2), 1, a.clone()), recorded(2, Some(1), 2, b.clone())],
            "a",
            1,
        );
        check(&[recorded(1, None, 1, a), recorded(2, None, 1, b.clone())], "b", 1);
        // It reads so already.
        check(&[recorded(1, None, 1, b.clone()), recorded(2, None, 2, b)], "b", 1);
        let (_, changed) = folded(&[recorded(1, None, 1, edited("first"))]);
        assert_eq!(changed.edited_at, None);
    }

    #[test]
    fn what_was_taken_back_stays_back() {
        let added = Change::AttachmentsAdded {
            attachments: vec![file("a", "00")],
        };
        let (message, changed) = folded(&[
            recorded(1, None, 1, Change::Deleted),
            recorded(2, None, 2, edited("again")),
            recorded(3, None, 3, added),
            recorded(4, None, 4, Change::Deleted),
        ]);
        assert_eq!((message.text.as_str(), message.attachments.len()), ("", 0));
        assert_eq!(changed.deleted_at, Some(Moment::from_ms(1)));
    }

    #[test]
    fn reactions_belong_to_their_person() {
        use Reacting::{Added, Only, Removed};
        let check = |steps: &[(&str, &[&str], Reacting)], expected: &[(&str, &str)]| {
            let changes: Vec<_> = (1..)
                .zip(steps)
                .map(|(n, (by, emojis, how))| recorded(n, None, i64::from(n), reacted(by, emojis, *how)))
                .collect();
            let (_, changed) = folded(&changes);
            let found: Vec<_> = changed
                .reactions
                .iter()
                .map(|r| (r.by.as_str(), r.emoji.as_str()))
                .collect();
            assert_eq!(found, expected, "{steps:?}");
        };
        check(&[("ann", &["👍"], Only)], &[("ann", "👍")]);
        check(&[("ann", &["👍"], Only), ("ann", &["🎉"], Only)], &[("ann", "🎉")]);
        check(
            &[("ann", &["👍"], Only), ("ben", &["👍"], Only), ("ann", &[], Only)],
            &[("ben", "👍")],
        );
        check(
            &[("ann", &["👍"], Added), ("ann", &["🎉"], Added)],
            &[("ann", "👍"), ("ann", "🎉")],
        );
        check(
            &[("ann", &["👍", "🎉"], Added), ("ann", &["👍"], Removed)],
            &[("ann", "🎉")],
        );
        check(&[("ann", &["👍"], Added), ("ann", &["👍"], Added)], &[("ann", "👍")]);
    }

    #[test]
    fn a_call_moves_forward_and_keeps_what_is_known() {
        let state = |state| Call {
            state: Some(state),
            ..Call::default()
        };
        let missed = |missed| Call {
            missed: Some(missed),
            ..Call::default()
        };
        let check = |calls: &[Call], expected: Call| {
            let changes: Vec<_> = (1..)
                .zip(calls)
                .map(|(n, call)| recorded(n, None, i64::from(n), called(call.clone())))
                .collect();
            assert_eq!(folded(&changes).1.call, Some(expected), "{calls:?}");
        };
        check(
            &[
                state(CallState::Ringing),
                state(CallState::Answered),
                state(CallState::Ringing),
            ],
            state(CallState::Answered),
        );
        check(
            &[state(CallState::Completed), state(CallState::Answered)],
            state(CallState::Completed),
        );
        check(
            &[state(CallState::Completed), state(CallState::Busy)],
            state(CallState::Busy),
        );
        check(&[missed(false), missed(true)], missed(false));
        check(&[missed(true), missed(false)], missed(false));
        let told = Call {
            duration_s: Some(7),
            transcription: Some("hello".to_owned()),
            ..Call::default()
        };
        check(
            &[told.clone(), state(CallState::Completed)],
            Call {
                state: Some(CallState::Completed),
                ..told
            },
        );
    }

    #[test]
    fn a_file_is_added_once() {
        let added = |files: Vec<Attachment>| Change::AttachmentsAdded { attachments: files };
        let (message, _) = folded(&[
            recorded(1, None, 1, added(vec![file("a", "00")])),
            recorded(2, None, 2, added(vec![file("a", "00"), file("b", "11")])),
        ]);
        let names: Vec<_> = message.attachments.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn names_come_back() {
        for state in CallState::ALL {
            assert_eq!(CallState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for how in [Reacting::Only, Reacting::Added, Reacting::Removed] {
            assert_eq!(Reacting::parse(how.as_str()), Some(how));
        }
        assert_eq!(CallState::parse("Ringing"), None);
        assert_eq!(Reacting::parse(""), None);
    }
}
