//! The rows of [`Changes`], table by table, each in the order of its keys, so
//! that two writers never wait for each other crosswise.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::context::{Changes, ParkedInput, Replacing};
use model::conversation::{Conversation, StoredMessage};
use model::event::{DeliveryReport, DeliveryState, Raw, RawContent};
use model::id::{ConversationId, MessageId, TicketId};
use model::ticket::{Category, Change, Ticket, TicketEvent};

use crate::connection::Connection;
use crate::sql::{Rows, Value, get, rows, sql, to_json};
use crate::{Error, announcements};

/// Longer ids are not kept as keys: an index entry of PostgreSQL has a limit,
/// and nobody quotes such an id honestly.
pub(crate) const MAX_EXTERNAL_ID_BYTES: usize = 1000;

/// What the quarantine of an account may hold (C4).
const QUARANTINE_INPUTS: i64 = 1_000;
const QUARANTINE_BYTES: i64 = 16 * 1024 * 1024;

/// Writes all of it. `false`: somebody else wrote first, and all is to be rolled back.
pub(crate) async fn write(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let is_current = insert_contacts(connection, changes).await?
        && insert_identities(connection, changes).await?
        && insert_conversations(connection, changes).await?
        && update_conversations(connection, changes).await?
        && insert_messages(connection, &changes.messages).await?
        && insert_tickets(connection, changes).await?
        && update_tickets(connection, changes).await?
        && insert_ticket_events(connection, &changes.ticket_events).await?;
    if !is_current {
        return Ok(false);
    }
    insert_message_accounts(connection, &changes.also_arrived_at).await?;
    move_deliveries(connection, &changes.deliveries).await?;
    insert_outbox(connection, changes).await?;
    insert_parked(connection, &changes.parked).await?;
    insert_traces(connection, changes).await?;
    insert_automatic_replies(connection, changes).await?;
    announcements::insert(connection, &changes.announcements).await
}

async fn insert_contacts(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO contacts (id, name, scheme, address, verified, created_at)
         SELECT column1, column2, column3, column4, column5, column6 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing contacts",
    );
    let contacts: BTreeMap<_, _> = changes.contacts.iter().map(|contact| (&contact.id, contact)).collect();
    for (id, contact) in contacts {
        statement.push(vec![
            id.as_str().into(),
            contact.name.as_deref().into(),
            contact.identity.scheme.as_str().into(),
            contact.identity.address.as_str().into(),
            contact.identity.verified.into(),
            contact.created_at.into(),
        ]);
    }
    insert_all(statement, connection).await
}

async fn insert_identities(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO identities (scheme, address, verified, contact_id)
         SELECT column1, column2, column3, column4 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing identities",
    );
    let identities: BTreeMap<_, _> = changes.identities.iter().map(|(identity, id)| (identity, id)).collect();
    for (identity, contact_id) in identities {
        statement.push(vec![
            identity.scheme.as_str().into(),
            identity.address.as_str().into(),
            identity.verified.into(),
            contact_id.as_str().into(),
        ]);
    }
    insert_all(statement, connection).await
}

async fn insert_conversations(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO conversations (id, version, contact_id, subject, thread_name, ticket_id, participants, suggested,
             epoch, last_sequence, last_message_at, account, channel, thread, created_at)
         SELECT column1, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12,
             column13, column14, column15, column16
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
             epoch = v.column10, last_sequence = v.column11, last_message_at = v.column12
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
    ])
}

async fn insert_messages(connection: &mut Connection, messages: &[StoredMessage]) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO messages (id, conversation_id, account, direction, author, occurred_at, received_at,
             provider_sequence, sequence, delivery, delivery_error, request_sha256, external_ids, content,
             raw_request, raw)
         SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11,
             column12, column13, column14, column15, column16
         FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing messages",
    );
    let messages: BTreeMap<_, _> = messages.iter().map(|message| (&message.id, message)).collect();
    let mut external_ids = HashSet::new();
    for message in messages.into_values() {
        statement.push(message_row(message)?);
        for external_id in &message.message.external_ids {
            external_ids.insert((external_id.as_str(), &message.id));
        }
    }
    Ok(insert_all(statement, connection).await? && insert_external_ids(connection, external_ids).await?)
}

fn message_row(message: &StoredMessage) -> Result<Vec<Value>, Error> {
    let mut content = message.message.clone();
    let external_ids = std::mem::take(&mut content.external_ids);
    let raw = message.raw.as_ref().map(raw_columns).transpose()?;
    let (raw_request, raw) = raw.unzip();
    Ok(vec![
        message.id.as_str().into(),
        message.conversation_id.as_str().into(),
        message.account.as_str().into(),
        message.direction.as_str().into(),
        message.author.as_str().into(),
        message.occurred_at.into(),
        message.received_at.into(),
        message.provider_sequence.into(),
        message.sequence.into(),
        message.delivery.map(DeliveryState::as_str).into(),
        message.delivery_error.as_deref().into(),
        message.request_sha256.as_deref().into(),
        to_json(&external_ids, "writing external ids")?.into(),
        to_json(&content, "writing messages")?.into(),
        raw_request.into(),
        raw.flatten().into(),
    ])
}

/// The request as JSON, and the bytes if they are not a blob.
fn raw_columns(raw: &Raw) -> Result<(String, Option<Vec<u8>>), Error> {
    let (content, bytes) = match &raw.content {
        RawContent::Inline(bytes) => (RawContent::default(), Some(bytes.clone())),
        blob @ RawContent::Blob { .. } => (blob.clone(), None),
    };
    let request = Raw {
        content,
        method: raw.method.clone(),
        url: raw.url.clone(),
        headers: raw.headers.clone(),
    };
    Ok((to_json(&request, "writing raw input")?, bytes))
}

/// The reverse of [`raw_columns`].
pub(crate) fn raw_of(mut request: Raw, bytes: Option<Vec<u8>>) -> Raw {
    if let (RawContent::Inline(inline), Some(bytes)) = (&mut request.content, bytes) {
        *inline = bytes;
    }
    request
}

pub(crate) async fn insert_external_ids(
    connection: &mut Connection,
    external_ids: HashSet<(&str, &MessageId)>,
) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO external_ids (external_id, message_id)
         SELECT column1, column2 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing external ids",
    );
    let mut external_ids: Vec<_> = external_ids
        .into_iter()
        .filter(|(external_id, _)| !external_id.is_empty() && external_id.len() <= MAX_EXTERNAL_ID_BYTES)
        .collect();
    external_ids.sort_unstable();
    for (external_id, message_id) in external_ids {
        statement.push(vec![external_id.into(), message_id.as_str().into()]);
    }
    statement.execute(connection).await?;
    Ok(true)
}

async fn insert_tickets(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO tickets (id, version, contact_id, state, category, is_open, queue, priority, assignee,
             needs_attention, next_clock_at, snapshot, number, kind, opened_at)
         SELECT column1, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12,
             column13, column14, column15, column16
         FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing tickets",
    );
    for replacing in changes.tickets.values().filter(is_new) {
        let ticket = &replacing.row;
        let mut row = ticket_row(replacing)?;
        row.extend([
            ticket.number.as_str().into(),
            ticket.kind.as_str().into(),
            ticket.opened_at.into(),
        ]);
        statement.push(row);
    }
    insert_all(statement, connection).await
}

async fn update_tickets(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "UPDATE tickets AS t SET version = v.column3, contact_id = v.column4, state = v.column5,
             category = v.column6, is_open = v.column7, queue = v.column8, priority = v.column9,
             assignee = v.column10, needs_attention = v.column11, next_clock_at = v.column12, snapshot = v.column13
         FROM {rows} WHERE t.id = v.column1 AND t.version = v.column2",
        "changing tickets",
    );
    for replacing in changes.tickets.values().filter(|row| !is_new(row)) {
        statement.push(ticket_row(replacing)?);
    }
    insert_all(statement, connection).await
}

/// The columns that change, after the id and the version that they replace.
fn ticket_row(replacing: &Replacing<Ticket>) -> Result<Vec<Value>, Error> {
    let ticket = &replacing.row;
    let next_clock_at = ticket.clocks.iter().filter_map(|clock| clock.next_at).min();
    Ok(vec![
        ticket.id.as_str().into(),
        replacing.expected_version.into(),
        ticket.version.into(),
        ticket.contact_id.as_str().into(),
        ticket.state.as_str().into(),
        category_name(ticket.category).into(),
        is_open(ticket.category).into(),
        ticket.queue.as_str().into(),
        i64::from(ticket.priority.number()).into(),
        ticket.assignee.as_deref().into(),
        ticket.needs_attention.is_some().into(),
        next_clock_at.into(),
        to_json(ticket, "writing tickets")?.into(),
    ])
}

fn category_name(category: Category) -> &'static str {
    match category {
        Category::Open => "open",
        Category::WaitingOnCustomer => "waiting_on_customer",
        Category::WaitingInternally => "waiting_internally",
        Category::Resolved => "resolved",
        Category::Closed => "closed",
        Category::Cancelled => "cancelled",
    }
}

fn is_open(category: Category) -> bool {
    match category {
        Category::Open | Category::WaitingOnCustomer | Category::WaitingInternally => true,
        Category::Resolved | Category::Closed | Category::Cancelled => false,
    }
}

async fn insert_ticket_events(connection: &mut Connection, events: &[(TicketId, TicketEvent)]) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO ticket_events (ticket_id, version, message_id, conversation_id, content)
         SELECT column1, column2, column3, column4, column5 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing ticket events",
    );
    let events: BTreeMap<_, _> = events.iter().map(|(id, event)| ((id, event.version), event)).collect();
    for ((id, version), event) in events {
        let message_id = match &event.change {
            Change::CustomerMessageReceived { message_id, .. }
            | Change::Replied { message_id, .. }
            | Change::NoteAdded { message_id } => Some(message_id.as_str()),
            _ => None,
        };
        let conversation_id = match &event.change {
            Change::Opened { conversation_id, .. } | Change::ConversationAdded { conversation_id } => {
                Some(conversation_id.as_str())
            }
            _ => None,
        };
        statement.push(vec![
            id.as_str().into(),
            version.into(),
            message_id.into(),
            conversation_id.into(),
            to_json(event, "writing ticket events")?.into(),
        ]);
    }
    insert_all(statement, connection).await
}

async fn insert_message_accounts(
    connection: &mut Connection,
    also_arrived_at: &[(MessageId, String)],
) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO message_accounts (message_id, account)
         SELECT column1, column2 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing accounts of messages",
    );
    let mut arrivals: Vec<_> = also_arrived_at.iter().collect();
    arrivals.sort_unstable();
    for (message_id, account) in arrivals {
        statement.push(vec![message_id.as_str().into(), account.as_str().into()]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// Only forward (C5): of several reports about one message the furthest counts.
async fn move_deliveries(connection: &mut Connection, deliveries: &[(MessageId, DeliveryReport)]) -> Result<(), Error> {
    let mut statement = rows(
        "UPDATE messages AS t SET delivery = v.column2, delivery_error = v.column4
         FROM {rows} WHERE t.id = v.column1 AND v.column3 > CASE t.delivery
             WHEN 'queued' THEN 0 WHEN 'sending' THEN 1 WHEN 'uncertain' THEN 2 WHEN 'sent' THEN 3
             WHEN 'failed' THEN 4 WHEN 'delivered' THEN 5 WHEN 'read' THEN 6 ELSE 7 END",
        "moving deliveries",
    );
    let mut furthest: BTreeMap<&MessageId, &DeliveryReport> = BTreeMap::new();
    for (message_id, report) in deliveries {
        let known = furthest.entry(message_id).or_insert(report);
        if report.state > known.state {
            *known = report;
        }
    }
    for (message_id, report) in furthest {
        statement.push(vec![
            message_id.as_str().into(),
            report.state.as_str().into(),
            report.state.rank().into(),
            report.error.as_deref().into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// Takes the place in the conversation from the message, which is written by now.
async fn insert_outbox(connection: &mut Connection, changes: &Changes) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO outbox (message_id, conversation_id, account, state, due_at, attempts, fence,
             occurred_at, received_at)
         SELECT m.id, v.column2, v.column3, 'queued', v.column4, 0, 0, m.occurred_at, m.received_at
         FROM {rows} JOIN messages AS m ON m.id = v.column1 WHERE v.column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing the outbox",
    );
    for entry in &changes.outbox {
        statement.push(vec![
            entry.message_id.as_str().into(),
            entry.conversation_id.as_str().into(),
            entry.account.as_str().into(),
            entry.due_at.into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// An id that is there already (a replay that failed again) opens again.
async fn insert_parked(connection: &mut Connection, parked: &[ParkedInput]) -> Result<(), Error> {
    let mut inputs: BTreeMap<&str, &ParkedInput> = parked.iter().map(|input| (input.id.as_str(), input)).collect();
    drop_over_quota(connection, &mut inputs).await?;
    let mut statement = rows(
        "INSERT INTO parked (id, account, channel, quarantined, reason, size_bytes, received_at, raw_request, raw)
         SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9
         FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT (id) DO UPDATE SET quarantined = excluded.quarantined, reason = excluded.reason,
             replayed_at = NULL",
        "writing parked inputs",
    );
    for (id, input) in inputs {
        let (raw_request, raw) = raw_columns(&input.raw)?;
        statement.push(vec![
            id.into(),
            input.account.as_str().into(),
            input.channel.as_str().into(),
            input.quarantined.into(),
            // Parking is the last resort: nothing about it may be refused.
            input.reason.replace('\0', "").into(),
            size_bytes(&input.raw).into(),
            input.received_at.into(),
            raw_request.into(),
            raw.into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// Takes new quarantined inputs out for which their account has no room.
async fn drop_over_quota(connection: &mut Connection, inputs: &mut BTreeMap<&str, &ParkedInput>) -> Result<(), Error> {
    let quarantined: Vec<&ParkedInput> = inputs.values().copied().filter(|input| input.quarantined).collect();
    if quarantined.is_empty() {
        return Ok(());
    }
    let known = rows(
        "SELECT p.id FROM {rows} JOIN parked AS p ON p.id = v.column1",
        "reading known quarantined inputs",
    )
    .of(quarantined.iter().map(|input| input.id.as_str()))
    .all(connection)
    .await?;
    let known: HashSet<String> = known.iter().map(|row| get(row, "id")).collect::<Result<_, _>>()?;
    let mut used = HashMap::new();
    for input in quarantined.into_iter().filter(|input| !known.contains(&input.id)) {
        if !used.contains_key(&input.account) {
            let present = quarantine_of(connection, &input.account).await?;
            used.insert(&input.account, present);
        }
        let Some((count, bytes)) = used.get_mut(&input.account) else {
            continue;
        };
        let size = size_bytes(&input.raw);
        if *count + 1 > QUARANTINE_INPUTS || *bytes + size > QUARANTINE_BYTES {
            inputs.remove(input.id.as_str());
            tracing::warn!(account.name = input.account, "quarantine full, input dropped");
            continue;
        }
        *count += 1;
        *bytes += size;
    }
    Ok(())
}

/// Inputs and bytes that wait in an account's quarantine.
async fn quarantine_of(connection: &mut Connection, account: &str) -> Result<(i64, i64), Error> {
    let row = sql(
        "SELECT COUNT(*) AS inputs, CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) AS bytes FROM parked
         WHERE quarantined = 1 AND account = $1 AND replayed_at IS NULL",
        "reading a quarantine's size",
    )
    .bind(account)
    .first(connection)
    .await?;
    row.as_ref()
        .map_or(Ok((0, 0)), |row| Ok((get(row, "inputs")?, get(row, "bytes")?)))
}

fn size_bytes(raw: &Raw) -> i64 {
    let content = match &raw.content {
        RawContent::Inline(bytes) => bytes.len() as u64,
        RawContent::Blob { size_bytes, .. } => *size_bytes,
    };
    i64::try_from(content).unwrap_or(i64::MAX)
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
