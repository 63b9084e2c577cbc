//! `hints::Hint` and `proto/hints/v1`.

use model::id::ConversationId;
use prost::Message as _;

use super::proto::hints::v1 as pb;
use crate::hints::{Hint, Typist};

/// The value of a record.
pub(crate) fn encode_hint(hint: &Hint) -> Vec<u8> {
    let what = match hint.clone() {
        Hint::Changed {
            account,
            thread,
            conversation_id,
            epoch,
            last_sequence,
        } => pb::hint::What::Changed(pb::Changed {
            account,
            thread,
            conversation_id: conversation_id.to_string(),
            epoch,
            last_sequence,
        }),
        Hint::Typing { account, thread, by } => pb::hint::What::Typing(pb::Typing {
            account,
            thread,
            by_desk: by == Typist::Desk,
        }),
        Hint::Presence {
            account,
            thread,
            is_here,
        } => pb::hint::What::Presence(pb::Presence {
            account,
            thread,
            is_here,
        }),
    };
    pb::Hint { what: Some(what) }.encode_to_vec()
}

/// `None`: no hint, or one of a newer version; nobody minds.
pub(crate) fn decode_hint(bytes: &[u8]) -> Option<Hint> {
    Some(match pb::Hint::decode(bytes).ok()?.what? {
        pb::hint::What::Changed(changed) => Hint::Changed {
            account: changed.account,
            thread: changed.thread,
            conversation_id: ConversationId::parse(&changed.conversation_id)?,
            epoch: changed.epoch,
            last_sequence: changed.last_sequence,
        },
        pb::hint::What::Typing(typing) => Hint::Typing {
            account: typing.account,
            thread: typing.thread,
            by: if typing.by_desk { Typist::Desk } else { Typist::Visitor },
        },
        pb::hint::What::Presence(presence) => Hint::Presence {
            account: presence.account,
            thread: presence.thread,
            is_here: presence.is_here,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_comes_back_as_it_went() {
        let id = ConversationId::begun_by(&model::id::MessageId::authored("anna", "1"));
        let (account, thread) = ("shop".to_owned(), "s-1".to_owned());
        let typing = |by| Hint::Typing {
            account: account.clone(),
            thread: thread.clone(),
            by,
        };
        let hints = [
            Hint::Changed {
                account: account.clone(),
                thread: thread.clone(),
                conversation_id: id,
                epoch: 2,
                last_sequence: 7,
            },
            typing(Typist::Desk),
            typing(Typist::Visitor),
            Hint::Presence {
                account: account.clone(),
                thread: thread.clone(),
                is_here: true,
            },
        ];
        for hint in hints {
            assert_eq!(decode_hint(&encode_hint(&hint)), Some(hint));
        }
        for bytes in [&b""[..], b"\xff\xff\xff", b"\x0a\x02\x0a\x00"] {
            assert_eq!(decode_hint(bytes), None, "{bytes:?}");
        }
    }
}
