//! Erasure: no table still holds what was said, nothing brings it back, and what
//! others use stays.

use sqlx::Row;

use model::conversation::{Direction, StoredMessage};
use model::event::{Attachment, Raw, RawContent};
use model::id::{ConversationId, MessageId};
use model::ticket::{Actor, Change, Command, Resolution, Ticket, TicketEvent};
use model::trace::Trace;

use model::change::RecordedChange;

use super::given::*;
use crate::Store;
use crate::apply::Outcome;
use crate::requests::Answered;
use crate::sql::{get, sql};
use crate::testing::{Database, on_both};

on_both!(
    nothing_is_left_of_what_was_said,
    a_second_erasure_and_a_replay_change_nothing,
    a_blob_that_others_use_stays,
    what_came_before_uses_were_counted_is_counted,
    the_conversation_goes_on_in_a_new_epoch,
);

/// Stands in every text of the conversation.
const MARK: &str = "marzipan";

/// The names of tables with a row that holds the mark.
async fn tables_with_mark(store: &Store) -> Vec<String> {
    let mut connection = store.read("scanning").await.unwrap();
    let names = match connection.is_postgres() {
        true => "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables WHERE table_schema = 'public'",
        false => "SELECT name FROM sqlite_master WHERE type = 'table'",
    };
    let names = sql(names, "scanning").all(&mut connection).await.unwrap();
    let mut found = Vec::new();
    for row in &names {
        let name: String = get(row, "name").unwrap();
        let text: &'static str = Box::leak(format!("SELECT * FROM {name}").into_boxed_str());
        for row in sql(text, "scanning").all(&mut connection).await.unwrap() {
            let holds = (0..row.len()).any(|column| {
                let text = row
                    .try_get::<Option<String>, _>(column)
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                let bytes = row
                    .try_get::<Option<Vec<u8>>, _>(column)
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                text.contains(MARK) || bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes())
            });
            if holds && !found.contains(&name) {
                found.push(name.clone());
            }
        }
    }
    found.sort();
    found
}

fn blob(text: &str) -> String {
    model::id::sha256_hex(text.as_bytes())
}

/// A message with the mark wherever there is room for a text, and its ticket.
async fn say(store: &Store, number: u64) -> ConversationId {
    let mut changes = arrival(number);
    let conversation = changes.conversations.values_mut().next().unwrap();
    conversation.row.subject = Some(MARK.to_owned());
    conversation.row.participants.insert(identity("marzipan@example.org"));
    let id = conversation.row.id.clone();
    let stored = &mut changes.messages[0];
    stored.message.subject = Some(MARK.to_owned());
    stored.message.text = format!("I like {MARK}.");
    stored.message.html = Some(format!("<p>{MARK}</p>"));
    stored.message.attachments = vec![
        Attachment {
            name: format!("{MARK}.txt"),
            ..Attachment::here("", "text/plain", format!("file {number}").as_bytes())
        },
        Attachment::here("logo.png", "image/png", b"logo"),
        Attachment::at("late.png", "image/png", format!("https://example.org/{MARK}.png")),
    ];
    stored.delivery_error = Some(MARK.to_owned());
    stored.raw = Some(Raw {
        content: RawContent::Inline(format!("raw {MARK} {number}").into_bytes()),
        ..raw()
    });
    changes.traces = vec![Trace {
        facts: serde_json::json!({ "text": MARK }),
        ..changes.traces[0].clone()
    }];
    for (_, event) in &mut changes.ticket_events {
        if let Change::Opened { subject, .. } = &mut event.change {
            *subject = MARK.to_owned();
        }
    }
    let ticket = changes.tickets.values_mut().next().unwrap();
    ticket.row.subject = MARK.to_owned();
    let ticket = ticket.row.clone();
    assert_eq!(store.commit(&changes).await.unwrap(), Outcome::Applied);
    resolve(store, &ticket).await;
    park_and_answer(store, number, &id).await;
    id
}

/// By the hand of somebody who quotes.
async fn resolve(store: &Store, ticket: &Ticket) {
    let resolution = Resolution {
        code: "solved".to_owned(),
        notes: Some(format!("they like {MARK}")),
    };
    let kind = model::ticket::kind::find(&ticket.kind).unwrap();
    let resolution = Resolution {
        code: kind
            .resolution_codes
            .first()
            .map_or(resolution.code, |code| (*code).to_owned()),
        ..resolution
    };
    let command = Command::Resolve { resolution };
    let actor = Actor::Person("ada".to_owned());
    let book = store.book().await.unwrap();
    let changes = model::context::Changes::of_command(ticket, &command, &actor, at(5), &book.sla).unwrap();
    assert_eq!(store.commit(&changes).await.unwrap(), Outcome::Applied);
}

/// A note, an answer that waits to be sent, and the parked input that the message
/// was replayed from.
async fn park_and_answer(store: &Store, number: u64, id: &ConversationId) {
    let conversation = store.conversation(id).await.unwrap().unwrap();
    let mut changes = reply(number, &conversation);
    changes.messages[0].message.text = format!("We have {MARK}.");
    let note = StoredMessage {
        id: MessageId::authored("ada", &format!("note {number}")),
        direction: Direction::Note,
        delivery: None,
        sequence: None,
        ..changes.messages[0].clone()
    };
    changes.messages.push(note);
    changes.parked = vec![model::context::ParkedInput {
        id: format!("evt_{number}"),
        account: "support".to_owned(),
        channel: "email".to_owned(),
        quarantined: false,
        reason: "unreadable".to_owned(),
        raw: Raw {
            content: RawContent::Inline(format!("raw {MARK} {number}").into_bytes()),
            ..raw()
        },
        received_at: at(0),
    }];
    let (added, edited) = (changed(number, 1, added_late()), changed(number, 2, edited()));
    let original = store.message(&message_id(number)).await.unwrap().unwrap().message;
    let stands = model::change::fold(&original, [&added, &edited]);
    changes.changed_messages.insert(message_id(number), stands);
    changes.message_changes = [added, edited].map(|change| (change.id.clone(), change)).into();
    changes.automatic_replies = vec![model::context::AutomaticReply {
        message_id: changes.messages[0].id.clone(),
        conversation_id: id.clone(),
        to: identity("marzipan@example.org"),
        at: at(0),
    }];
    let answered = Answered {
        person: "ada".to_owned(),
        idempotency_key: format!("key {number}"),
        request_sha256: "00".to_owned(),
        answer: format!(r#"{{"conversation_id":"{id}","text":"{MARK}"}}"#),
        answered_at: at(0),
    };
    assert_eq!(
        store.commit_answered(&changes, &answered).await.unwrap(),
        Outcome::Applied
    );
}

fn changed(number: u64, place: u64, change: model::change::Change) -> RecordedChange {
    RecordedChange {
        id: format!("evt_{number}{place}"),
        account: "support".to_owned(),
        external_id: external_id(number),
        message_id: Some(message_id(number)),
        change,
        occurred_at: at(3),
        received_at: at(3),
        provider_sequence: None,
    }
}

fn edited() -> model::change::Change {
    model::change::Change::Edited {
        text: format!("I love {MARK}."),
        html: None,
    }
}

fn added_late() -> model::change::Change {
    model::change::Change::AttachmentsAdded {
        attachments: vec![Attachment::at(
            "more.png",
            "image/png",
            format!("https://example.org/more-{MARK}.png"),
        )],
    }
}

async fn nothing_is_left_of_what_was_said(database: &Database) {
    let store = database.store().await;
    let id = say(&store, 1).await;
    let before = tables_with_mark(&store).await;
    let expected = [
        "announcements",
        "automatic_replies",
        "conversations",
        "message_changes",
        "messages",
        "parked",
        "requests",
        "ticket_events",
        "tickets",
        "traces",
    ];
    assert_eq!(before, expected);
    assert_eq!(store.erase_conversation(&id, "ada", at(9)).await.unwrap(), Some(true));
    assert_eq!(tables_with_mark(&store).await, Vec::<String>::new());

    assert!(store.messages(&id, None, 10).await.unwrap().is_empty());
    assert_eq!(store.message(&message_id(1)).await.unwrap(), None);
    assert!(store.is_erased(&message_id(1)).await.unwrap());
    assert_eq!(store.outbox_pending().await.unwrap().0, 0);
    assert_eq!(store.media_pending().await.unwrap(), 0);
    let due: Vec<String> = due_blobs(&store).await;
    assert_eq!(due, sorted([blob("file 1"), blob("logo")]));

    // Who erased it, and when, in the ticket; the ticket is still the fold of its events.
    let (ticket, events) = ticket_of(&store, 1).await;
    let last = events.last().unwrap();
    assert_eq!((&last.actor, last.at), (&Actor::Person("ada".to_owned()), at(9)));
    assert!(matches!(&last.change, Change::ConversationErased { conversation_id } if *conversation_id == id));
    let book = store.book().await.unwrap();
    assert_eq!(Ticket::fold(&ticket.id, &events, &book.sla).unwrap(), ticket);
    let told = store.next_announcements(1_000).await.unwrap();
    let erased = told.iter().find(|told| told.kind == "conversation.erased").unwrap();
    assert_eq!(
        (erased.subject.as_str(), &erased.data["person"]),
        (id.as_str(), &serde_json::json!("ada"))
    );
    store.close().await;
    // Not in the free parts of the file either.
    if let Some(path) = database.url.strip_prefix("sqlite:") {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes()));
    }
}

async fn a_second_erasure_and_a_replay_change_nothing(database: &Database) {
    let store = database.store().await;
    let id = say(&store, 1).await;
    assert_eq!(store.erase_conversation(&id, "ada", at(9)).await.unwrap(), Some(true));
    let conversation = store.conversation(&id).await.unwrap();
    assert_eq!(store.erase_conversation(&id, "bob", at(10)).await.unwrap(), Some(false));
    let unknown = ConversationId::begun_by(&message_id(99));
    assert_eq!(store.erase_conversation(&unknown, "bob", at(10)).await.unwrap(), None);

    let event = event(1, "1@example.org");
    let book = store.book().await.unwrap();
    let context = store.context(book, TOPIC, 0, &[&event]).await.unwrap();
    assert!(model::decide::decide(&event, &context, at(11)).is_empty());
    // Its files come with it, and go again.
    let mut event = event;
    if let model::event::Body::MessageReceived(message) = &mut event.body {
        message.attachments = vec![Attachment::here("", "text/plain", b"file 1")];
    }
    let changes = model::decide::decide(&event, &context, at(9));
    let due = store.removals_due(at(9), 10).await.unwrap();
    for removal in &due {
        store.settle_removal(removal, None).await.unwrap();
    }
    assert_eq!(due_blobs(&store).await, Vec::<String>::new());
    store.commit(&changes).await.unwrap();
    assert_eq!(due_blobs(&store).await, [blob("file 1")]);
    // A change of the message does not wait for it.
    let mut waiting = model::context::Changes::default();
    let replayed = RecordedChange {
        message_id: None,
        ..changed(1, 2, edited())
    };
    waiting.message_changes.insert(replayed.id.clone(), replayed);
    store.commit(&waiting).await.unwrap();
    assert_eq!(tables_with_mark(&store).await, Vec::<String>::new());
    assert_eq!(store.conversation(&id).await.unwrap(), conversation);
}

async fn a_blob_that_others_use_stays(database: &Database) {
    let store = database.store().await;
    let (one, two) = (say(&store, 1).await, say(&store, 2).await);
    store.erase_conversation(&one, "ada", at(9)).await.unwrap();
    assert_eq!(due_blobs(&store).await, [blob("file 1")]);
    assert!(!store.is_unused(&blob("logo")).await.unwrap());
    store.erase_conversation(&two, "ada", at(9)).await.unwrap();
    assert_eq!(
        due_blobs(&store).await,
        sorted([blob("file 1"), blob("file 2"), blob("logo")])
    );
    let removals = store.removals_due(at(9), 10).await.unwrap();
    store.settle_removal(&removals[0], None).await.unwrap();
    store.settle_removal(&removals[1], Some(at(20))).await.unwrap();
    assert_eq!(store.removals_due(at(9), 10).await.unwrap(), removals[2..]);
    // Used again meanwhile: off the list.
    let three = say(&store, 3).await;
    assert!(!due_blobs(&store).await.contains(&blob("logo")));
    // It need not be looked at again until its last use is erased.
    for removal in store.removals_in_vain(at(9), 10).await.unwrap() {
        assert_eq!(removal.sha256, blob("logo"));
        store.settle_removal(&removal, None).await.unwrap();
    }
    assert!(store.removals_in_vain(at(99), 10).await.unwrap().is_empty());
    store.erase_conversation(&three, "ada", at(9)).await.unwrap();
    assert!(due_blobs(&store).await.contains(&blob("logo")));
}

async fn what_came_before_uses_were_counted_is_counted(database: &Database) {
    let store = database.store().await;
    let mut changes = arrival(1);
    changes.messages[0].message.attachments = vec![Attachment::here("a", "text/plain", b"a")];
    changes.messages[0].raw = Some(Raw {
        content: RawContent::Blob {
            sha256: blob("raw"),
            size_bytes: 3,
        },
        ..raw()
    });
    store.commit(&changes).await.unwrap();
    let mut transaction = store.begin("forgetting uses").await.unwrap();
    sql("DELETE FROM blob_uses", "forgetting uses")
        .execute(&mut transaction)
        .await
        .unwrap();
    crate::blobs::note_uses(&mut transaction).await.unwrap();
    transaction.commit("forgetting uses").await.unwrap();
    for text in ["a", "raw"] {
        assert!(!store.is_unused(&blob(text)).await.unwrap(), "{text}");
    }
}

async fn the_conversation_goes_on_in_a_new_epoch(database: &Database) {
    let store = database.store().await;
    let id = say(&store, 1).await;
    let before = store.conversation(&id).await.unwrap().unwrap();
    store.erase_conversation(&id, "ada", at(9)).await.unwrap();
    let after = store.conversation(&id).await.unwrap().unwrap();
    assert_eq!(
        (after.epoch, after.last_sequence, after.subject),
        (before.epoch + 1, 0, None)
    );
    assert_eq!((&after.thread, after.version > before.version), (&before.thread, true));
    // Whoever decided before the erasure decides again.
    let changes = reply(7, &before);
    assert_eq!(store.commit(&changes).await.unwrap(), Outcome::Stale);
    let again = store.conversation(&id).await.unwrap().unwrap();
    assert_eq!(store.commit(&reply(7, &again)).await.unwrap(), Outcome::Applied);
    let visible = store.visible_messages(&id, 0, 10).await.unwrap().unwrap();
    assert_eq!((visible.epoch, visible.messages.len()), (before.epoch + 1, 1));
    assert_eq!(visible.messages[0].sequence, Some(1));
}

async fn due_blobs(store: &Store) -> Vec<String> {
    let due = store.removals_due(at(9), 100).await.unwrap();
    sorted(due.into_iter().map(|removal| removal.sha256))
}

fn sorted(blobs: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut blobs: Vec<String> = blobs.into_iter().collect();
    blobs.sort();
    blobs
}

async fn ticket_of(store: &Store, number: u64) -> (Ticket, Vec<TicketEvent>) {
    let id = model::id::TicketId::opened_by(&message_id(number));
    let ticket = store.ticket_by_id(&id).await.unwrap().unwrap();
    let events = store.ticket_events(&id).await.unwrap();
    (ticket, events)
}
