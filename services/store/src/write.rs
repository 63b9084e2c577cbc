//! The rows of [`Changes`], table by table, each in the order of its keys, so
//! that two writers never wait for each other crosswise.

mod contacts;
mod media;
mod messages;
mod parked;
mod tickets;

pub(crate) use media::insert_uses;
pub(crate) use messages::{MAX_EXTERNAL_ID_BYTES, insert_external_ids, raw_of};
pub(crate) use tickets::{OPEN, insert_events as insert_ticket_events, update as update_tickets};

use std::collections::BTreeMap;

use model::context::{Changes, Replacing};
use model::conversation::Conversation;
use model::id::{ConversationId, TicketId};

use crate::connection::Connection;
use crate::sql::{Rows, Value, rows, to_json};
use crate::{Error, accounts, announcements, changes};

/// Writes all of it. `false`: somebody else wrote first, and all is to be rolled back.
pub(crate) async fn write(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let is_current = contacts::insert(connection, changes).await?
        && contacts::update(connection, changes).await?
        && contacts::insert_identities(connection, changes).await?
        && contacts::insert_merges(connection, changes).await?
        && contacts::update_merges(connection, changes).await?
        && insert_conversations(connection, changes).await?
        && update_conversations(connection, changes).await?
        && messages::insert(connection, &changes.messages).await?
        && tickets::insert(connection, changes).await?
        && tickets::update(connection, changes).await?
        && tickets::insert_events(connection, &changes.ticket_events).await?;
    if !is_current {
        return Ok(false);
    }
    contacts::insert_claims(connection, changes).await?;
    let named = changes
        .named
        .iter()
        .map(|(message_id, name)| (name.as_str(), message_id));
    insert_external_ids(connection, named.collect()).await?;
    messages::insert_accounts(connection, &changes.also_arrived_at).await?;
    messages::move_deliveries(connection, &changes.deliveries).await?;
    messages::take_back_arrived(connection, &changes.deliveries).await?;
    changes::insert(connection, &changes.message_changes).await?;
    changes::update_messages(connection, &changes.changed_messages).await?;
    messages::insert_outbox(connection, changes).await?;
    parked::insert(connection, &changes.parked).await?;
    accounts::note_broken(connection, &changes.broken_accounts).await?;
    media::insert(connection, changes).await?;
    insert_traces(connection, changes).await?;
    insert_automatic_replies(connection, changes).await?;
    announcements::insert(connection, &changes.announcements).await
}

async fn insert_conversations(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO conversations (id, version, contact_id, subject, thread_name, ticket_id, participants, suggested,
             epoch, last_sequence, last_message_at, consent, account, channel, thread, created_at)
         SELECT column1, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12,
             column13, column14, column15, column16, column17
         FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing conversations",
    );
    for replacing in changes.conversations.values().filter(is_new) {
        let conversation = &replacing.row;
        let mut row = conversation_row(replacing)?;
        row.extend([
            conversation.account.as_str().into(),
            conversation.channel.as_str().into(),
            conversation.thread.as_str().into(),
            conversation.created_at.into(),
        ]);
        statement.push(row);
    }
    insert_all(statement, connection).await
}

async fn update_conversations(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "UPDATE conversations AS t SET version = v.column3, contact_id = v.column4, subject = v.column5,
             thread_name = v.column6, ticket_id = v.column7, participants = v.column8, suggested = v.column9,
             epoch = v.column10, last_sequence = v.column11, last_message_at = v.column12, consent = v.column13
         FROM {rows} WHERE t.id = v.column1 AND t.version = v.column2",
        "changing conversations",
    );
    for replacing in changes.conversations.values().filter(|row| !is_new(row)) {
        statement.push(conversation_row(replacing)?);
    }
    insert_all(statement, connection).await
}

/// The columns that change, after the id and the version that they replace.
fn conversation_row(replacing: &Replacing<Conversation>) -> Result<Vec<Value>, Error> {
    let conversation = &replacing.row;
    let consent = conversation.consent.as_ref();
    let consent = consent.map(|consent| to_json(consent, "writing consent")).transpose()?;
    Ok(vec![
        conversation.id.as_str().into(),
        replacing.expected_version.into(),
        conversation.version.into(),
        conversation.contact_id.as_str().into(),
        conversation.subject.as_deref().into(),
        conversation.thread_name.as_deref().into(),
        conversation.ticket_id.as_ref().map(TicketId::as_str).into(),
        to_json(&conversation.participants, "writing participants")?.into(),
        conversation.suggested.as_ref().map(ConversationId::as_str).into(),
        conversation.epoch.into(),
        conversation.last_sequence.into(),
        conversation.last_message_at.into(),
        consent.into(),
    ])
}

async fn insert_traces(connection: &mut Connection, changes: &Changes) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO traces (message_id, content)
         SELECT column1, column2 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing traces",
    );
    let traces: BTreeMap<_, _> = changes.traces.iter().map(|trace| (&trace.message_id, trace)).collect();
    for (message_id, trace) in traces {
        statement.push(vec![
            message_id.as_str().into(),
            to_json(trace, "writing traces")?.into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

async fn insert_automatic_replies(connection: &mut Connection, changes: &Changes) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO automatic_replies (conversation_id, message_id, scheme, address, sent_at)
         SELECT column1, column2, column3, column4, column5 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing automatic replies",
    );
    let mut replies: Vec<_> = changes.automatic_replies.iter().collect();
    replies.sort_unstable_by_key(|reply| (&reply.conversation_id, &reply.message_id));
    for reply in replies {
        statement.push(vec![
            reply.conversation_id.as_str().into(),
            reply.message_id.as_str().into(),
            reply.to.scheme.as_str().into(),
            reply.to.address.as_str().into(),
            reply.at.into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// Whether every row was written; `false` if one was lost to somebody else.
pub(crate) async fn insert_all(statement: Rows, connection: &mut Connection) -> Result<bool, Error> {
    let expected = statement.len();
    Ok(statement.execute(connection).await? == expected)
}

fn is_new<T>(replacing: &&Replacing<T>) -> bool {
    replacing.expected_version == 0
}
