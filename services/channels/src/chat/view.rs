//! What a client has been shown, what it has lost, and how it sees a message.

use axum::extract::ws::WebSocket;
use model::conversation::{Direction, StoredMessage};

use super::frame::{Saying, ShownFile};
use super::session::Visitor;
use super::wire::{End, write};
use super::{Chat, files, parse};

/// What the client has been shown.
pub(super) struct View {
    /// `None`: of no conversation yet.
    pub epoch: Option<i64>,
    pub sequence: i64,
    /// `resume` was answered.
    pub is_answered: bool,
}

impl View {
    /// Answers a `resume` where there is no conversation.
    pub async fn show_nothing(&mut self, websocket: &mut WebSocket) -> Result<(), End> {
        if self.is_answered {
            return Ok(());
        }
        let had = self.epoch.is_some() && self.sequence > 0;
        *self = View {
            epoch: None,
            sequence: 0,
            is_answered: true,
        };
        if had {
            write(websocket, &Saying::Gone { epoch: None }).await?;
        }
        let saying = Saying::Resume {
            epoch: None,
            sequence: 0,
        };
        write(websocket, &saying).await
    }

    /// Whether something that the client has been shown, or should have been, is no
    /// longer there: in this epoch, up to this number, and `first` is what comes next.
    pub fn has_lost(&self, epoch: i64, last_sequence: i64, first: Option<i64>) -> bool {
        let is_other = self.epoch.is_some_and(|known| known != epoch);
        let is_ahead = self.sequence > last_sequence;
        let has_gap = self.sequence > 0 && first.is_some_and(|first| first != self.sequence + 1);
        is_other || is_ahead || has_gap
    }
}

/// A message as its visitor sees it.
pub(super) fn shown(chat: &Chat, visitor: &Visitor, epoch: i64, stored: &StoredMessage) -> String {
    let message = &stored.message;
    // What cannot be had, now or any more, is not shown.
    let here = message.attachments.iter().filter(|file| !file.sha256.is_empty());
    let files = here.map(|file| ShownFile {
        name: &file.name,
        media_type: &file.media_type,
        size_bytes: file.size_bytes,
        url: files::url(&chat.account, &chat.keys, file),
    });
    Saying::Message {
        epoch,
        sequence: stored.sequence.unwrap_or_default(),
        id: stored.id.as_str(),
        from: match stored.direction {
            Direction::Inbound => "visitor",
            _ if message.automatic.is_some() => "automatic",
            _ => "agent",
        },
        client_id: parse::client_id(&visitor.thread, stored),
        text: &message.text,
        files: files.collect(),
        at: stored.received_at.to_string(),
    }
    .text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_when_history_is_gone_and_only_then() {
        let check = |known: (Option<i64>, i64), found: (i64, i64, Option<i64>), expected: bool| {
            let view = View {
                epoch: known.0,
                sequence: known.1,
                is_answered: true,
            };
            let (epoch, last_sequence, first) = found;
            assert_eq!(
                view.has_lost(epoch, last_sequence, first),
                expected,
                "{known:?} {found:?}"
            );
        };
        // Everything, from the beginning: also of what begins with a later number.
        check((None, 0), (1, 3, Some(1)), false);
        check((None, 0), (2, 9, Some(7)), false);
        check((Some(1), 0), (1, 0, None), false);
        // What comes next, and nothing new.
        check((Some(1), 3), (1, 5, Some(4)), false);
        check((Some(1), 3), (1, 3, None), false);
        // Another epoch, a number that nobody gave, a gap.
        check((Some(1), 3), (2, 5, Some(4)), true);
        check((Some(1), 0), (2, 5, Some(1)), true);
        check((Some(2), 3), (1, 5, Some(4)), true);
        check((Some(1), 6), (1, 5, None), true);
        check((Some(1), 3), (1, 5, Some(5)), true);
    }
}
