//! Reads what the decisions about a batch need, in a number of statements that
//! does not depend on the batch.

mod people;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use sqlx::any::AnyRow;

use model::change::{Change, RecordedChange};
use model::contact::{Identity, Party};
use model::context::{Book, Context, KnownMessage, MessageReference};
use model::event::{Body, DeliveryState, Event, Message};
use model::evidence::Opened;
use model::id::{ContactId, ConversationId, MessageId, TicketId};
use model::outbound::{Declaration, Join};
use model::ticket::Ticket;
use model::time::Moment;

use crate::apply::offset;
use crate::changes::{change_columns, change_of};
use crate::connection::Connection;
use crate::conversations::{conversation_columns, conversation_of};
use crate::sql::{get, json, moment, parsed, parsed_if_any, rows, sql};
use crate::write::MAX_EXTERNAL_ID_BYTES;
use crate::{Error, Store};

/// Open tickets of a contact that a decision may look at: the latest.
const OPEN_TICKETS: usize = 20;

/// What a batch asks for.
#[derive(Default)]
struct Asked {
    message_ids: BTreeSet<MessageId>,
    signed_messages: BTreeSet<MessageId>,
    external_ids: BTreeSet<String>,
    /// External ids of messages that the batch changes, and of its new ones: those
    /// whose changes may have come before them.
    changed: BTreeSet<String>,
    arrived: BTreeSet<String>,
    /// Of those that are changed, calls of which it is known now whether they were
    /// missed: they may find a ticket.
    called: BTreeSet<String>,
    /// (account, thread name).
    threads: BTreeSet<(String, String)>,
    /// Of these, those whose watermark moves, and those where we wrote elsewhere.
    watermarks: BTreeSet<(String, String)>,
    echoes: BTreeSet<(String, String)>,
    conversations: BTreeSet<ConversationId>,
    senders: BTreeSet<Identity>,
    /// Senders, and whoever else they may prove to be.
    identities: BTreeSet<Identity>,
    /// Who answers which of our messages, as if the address were verified.
    answers: Vec<(Identity, Vec<MessageId>)>,
    /// A channel vouches for a second identity, or for a link that was opened.
    is_vouched: bool,
    /// A message may join an open ticket of its contact.
    joins_open: bool,
    /// Conversations whose links were opened.
    opened: BTreeSet<ConversationId>,
}

impl Store {
    /// What is known that bears on these events, and the partition's next offset
    /// (0 for one never seen). What stays of its `numbers` goes back by
    /// [`Store::return_numbers`].
    pub async fn context(
        &self,
        book: Arc<Book>,
        topic: &str,
        partition: i32,
        events: &[&Event],
    ) -> Result<Context, Error> {
        let asked = Asked::by(events, &book);
        let mut context = Context {
            book,
            ..Context::default()
        };
        {
            let mut connection = self.read("reading a context").await?;
            context.next_offset = offset(&mut connection, topic, partition).await?;
            read(&mut connection, &asked, &mut context).await?;
        }
        let new_messages = asked.message_ids.len() - context.known_messages.len();
        context.numbers = self.take_numbers(new_messages + asked.called.len()).await?;
        Ok(context)
    }

    /// The next offset of each partition of a topic, by the store.
    pub async fn offsets(&self, topic: &str) -> Result<Vec<(i32, i64)>, Error> {
        let doing = "reading offsets";
        let mut connection = self.read(doing).await?;
        let found = sql(
            "SELECT partition, next_offset FROM partitions WHERE topic = $1 ORDER BY partition",
            doing,
        )
        .bind(topic)
        .all(&mut connection)
        .await?;
        found
            .iter()
            .map(|row| {
                let partition: i64 = get(row, "partition")?;
                let partition = i32::try_from(partition).map_err(|error| Error::corrupt(doing, error))?;
                Ok((partition, get(row, "next_offset")?))
            })
            .collect()
    }
}

impl Asked {
    fn by(events: &[&Event], book: &Book) -> Self {
        let mut asked = Self::default();
        for event in events {
            let plan = book.accounts.get(&event.account);
            asked.joins_open |= plan.is_some_and(|plan| plan.join == Join::Open);
            asked.message_ids.extend(event.message_id());
            match &event.body {
                Body::MessageReceived(message) => asked.add(event, message),
                Body::DeliveryReported(report) => asked.add_external_id(&report.external_id),
                Body::MessageChanged(told) => {
                    asked.add_external_id(&told.external_id);
                    asked.changed.insert(told.external_id.clone());
                    if matches!(&told.change, Change::Called(call) if call.missed.is_some()) {
                        asked.called.insert(told.external_id.clone());
                    }
                }
                Body::ConsentChanged(told) => {
                    asked.threads.insert((event.account.clone(), told.thread.clone()));
                }
                Body::WatermarkMoved(watermark) => {
                    let thread = (event.account.clone(), watermark.thread.clone());
                    asked.threads.insert(thread.clone());
                    asked.watermarks.insert(thread);
                }
                Body::AccountBroken { .. } | Body::Parked { .. } | Body::Quarantined { .. } => {}
            }
        }
        asked
    }

    fn add(&mut self, event: &Event, message: &Message) {
        self.arrived.extend(message.external_ids.iter().cloned());
        if message.sender.scheme == Party::OURS {
            for external_id in &message.external_ids {
                self.add_external_id(external_id);
            }
            if let Some(thread) = &message.evidence.thread {
                self.echoes.insert((event.account.clone(), thread.clone()));
            }
        }
        let evidence = &message.evidence;
        self.signed_messages.extend(evidence.signed_messages.iter().cloned());
        self.conversations.extend(evidence.signed_conversations.iter().cloned());
        for quoted in &evidence.quoted_ids {
            self.add_external_id(quoted);
        }
        if let Some(thread) = &evidence.thread {
            self.threads.insert((event.account.clone(), thread.clone()));
        }
        let sender = message.sender.identity();
        self.identities.insert(sender.clone());
        if !evidence.signed_messages.is_empty() {
            let verified = Identity {
                verified: true,
                ..sender.clone()
            };
            self.identities.insert(verified.clone());
            self.answers.push((verified, evidence.signed_messages.clone()));
        }
        for party in message.identities.iter().filter(|party| party.verified) {
            self.identities.insert(party.identity());
            self.is_vouched = true;
        }
        if let Some(Opened::Conversation(id)) = &evidence.opened {
            self.conversations.insert(id.clone());
            self.opened.insert(id.clone());
            self.is_vouched = true;
        }
        self.senders.insert(sender);
    }

    fn add_external_id(&mut self, external_id: &str) {
        // What is longer is not stored.
        if external_id.len() <= MAX_EXTERNAL_ID_BYTES {
            self.external_ids.insert(external_id.to_owned());
        }
    }
}

async fn read(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    // Before the names: what leaves this list in between has one.
    read_in_flight(connection, asked, context).await?;
    read_messages(connection, asked, context).await?;
    read_accounts(connection, context).await?;
    read_external_ids(connection, asked, context).await?;
    read_originals(connection, asked, context).await?;
    read_changes(connection, asked, context).await?;
    read_threads(connection, asked, context).await?;
    read_unread(connection, asked, context).await?;

    let mut reachable = asked.conversations.clone();
    reachable.extend(context.threads.values().cloned());
    let in_flight = context.in_flight.values().flatten();
    reachable.extend(in_flight.map(|(reference, _)| reference.conversation_id.clone()));
    let by_external_id = context.external_ids.values().flatten();
    let references = context.signed_messages.values().chain(by_external_id);
    reachable.extend(references.map(|reference| reference.conversation_id.clone()));
    read_conversations(connection, &reachable, context).await?;
    people::read(connection, asked, context).await?;

    read_tickets(connection, context).await?;
    if asked.joins_open {
        read_open_tickets(connection, context).await?;
    }
    read_budgets_of_conversations(connection, context).await?;
    read_budgets_of_addresses(connection, asked, context).await
}

/// Those of the batch, and those of ours that it quotes.
async fn read_messages(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let ids: BTreeSet<&MessageId> = asked.message_ids.union(&asked.signed_messages).collect();
    let found = rows(
        "SELECT m.id, m.conversation_id, m.account, m.delivery, m.occurred_at, m.erased_at FROM {rows} JOIN messages AS m ON m.id = v.column1",
        "reading known messages",
    )
    .of(ids.into_iter().map(MessageId::as_str))
    .all(connection)
    .await?;
    for row in &found {
        let id = parsed(row, "id", MessageId::parse)?;
        let is_erased = get::<Option<i64>>(row, "erased_at")?.is_some();
        if asked.signed_messages.contains(&id) {
            context.signed_messages.insert(id.clone(), reference(row)?);
        }
        if asked.message_ids.contains(&id) {
            let accounts = if is_erased {
                BTreeSet::new()
            } else {
                BTreeSet::from([get(row, "account")?])
            };
            context.known_messages.insert(id, KnownMessage { accounts });
        }
    }
    Ok(())
}

/// Where else the known messages arrived. A tombstone has no accounts.
async fn read_accounts(connection: &mut Connection, context: &mut Context) -> Result<(), Error> {
    let others = rows(
        "SELECT a.message_id, a.account FROM {rows} JOIN message_accounts AS a ON a.message_id = v.column1",
        "reading accounts of messages",
    )
    .of(context.known_messages.keys().map(MessageId::as_str))
    .all(connection)
    .await?;
    for row in &others {
        let id = parsed(row, "message_id", MessageId::parse)?;
        if let Some(known) = context.known_messages.get_mut(&id)
            && !known.accounts.is_empty()
        {
            known.accounts.insert(get(row, "account")?);
        }
    }
    Ok(())
}

async fn read_external_ids(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let found = rows(
        "SELECT e.external_id, m.id, m.conversation_id, m.account, m.delivery, m.occurred_at
         FROM {rows} JOIN external_ids AS e ON e.external_id = v.column1 JOIN messages AS m ON m.id = e.message_id
         WHERE m.erased_at IS NULL
         ORDER BY m.received_at, m.id",
        "reading messages by external id",
    )
    .of(asked.external_ids.iter())
    .all(connection)
    .await?;
    for row in &found {
        let external_id = get(row, "external_id")?;
        context
            .external_ids
            .entry(external_id)
            .or_default()
            .push(reference(row)?);
    }
    Ok(())
}

fn reference(row: &AnyRow) -> Result<MessageReference, Error> {
    Ok(MessageReference {
        message_id: parsed(row, "id", MessageId::parse)?,
        conversation_id: parsed(row, "conversation_id", ConversationId::parse)?,
        account: get(row, "account")?,
        delivery: parsed_if_any(row, "delivery", DeliveryState::parse)?,
        occurred_at: moment(row, "occurred_at")?,
    })
}

/// Messages that the batch changes, as they were first written.
async fn read_originals(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let found = rows(
        "SELECT m.id, m.content FROM {rows} JOIN external_ids AS e ON e.external_id = v.column1
         JOIN messages AS m ON m.id = e.message_id WHERE m.erased_at IS NULL",
        "reading changed messages",
    )
    .of(asked.changed.iter())
    .all(connection)
    .await?;
    for row in &found {
        let id = parsed(row, "id", MessageId::parse)?;
        context.originals.insert(id, json(row, "content")?);
    }
    Ok(())
}

/// What has changed these messages so far, and what waits for messages.
async fn read_changes(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let found = rows(
        concat!(
            "SELECT ",
            change_columns!(),
            " FROM {rows} JOIN message_changes AS h ON h.message_id = v.column1"
        ),
        "reading changes of messages",
    )
    .of(context.originals.keys().map(MessageId::as_str))
    .all(connection)
    .await?;
    for row in &found {
        let id = parsed(row, "message_id", MessageId::parse)?;
        context.message_changes.entry(id).or_default().push(change_of(row)?);
    }
    let waiting = rows(
        concat!(
            "SELECT ",
            change_columns!(),
            " FROM {rows} JOIN message_changes AS h ON h.external_id = v.column1 AND h.message_id IS NULL"
        ),
        "reading changes that wait",
    )
    .of(asked.changed.union(&asked.arrived))
    .all(connection)
    .await?;
    context.early_changes = waiting
        .iter()
        .map(change_of)
        .collect::<Result<Vec<RecordedChange>, _>>()?;
    Ok(())
}

/// What has left and is not read yet, where a watermark moves.
async fn read_unread(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let mut statement = rows(
        "SELECT c.thread_name, m.id, m.conversation_id, m.account, m.delivery, m.occurred_at FROM {rows}
         JOIN conversations AS c ON c.account = v.column1 AND c.thread_name = v.column2
         JOIN messages AS m ON m.conversation_id = c.id AND m.account = c.account
         WHERE m.delivery IN ('sent', 'delivered') AND m.erased_at IS NULL
         ORDER BY m.occurred_at, m.id",
        "reading messages that are not read",
    );
    for (account, thread) in &asked.watermarks {
        statement.push(vec![account.into(), thread.into()]);
    }
    for row in &statement.all(connection).await? {
        let thread = (get(row, "account")?, get(row, "thread_name")?);
        context.unread.entry(thread).or_default().push(reference(row)?);
    }
    Ok(())
}

/// What is on its way, or may be, where we wrote elsewhere and only words tell what
/// was sent by us.
async fn read_in_flight(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let mut statement = rows(
        "SELECT c.thread_name, m.id, m.conversation_id, m.account, m.delivery, m.occurred_at, m.content, a.declaration
         FROM {rows}
         JOIN accounts AS a ON a.name = v.column1
         JOIN conversations AS c ON c.account = v.column1 AND c.thread_name = v.column2
         JOIN messages AS m ON m.conversation_id = c.id AND m.account = c.account
         LEFT JOIN outbox AS o ON o.message_id = m.id
         WHERE (o.state = 'sending' OR m.delivery = 'uncertain') AND m.erased_at IS NULL
         ORDER BY m.occurred_at, m.id",
        "reading messages that are being sent",
    );
    for (account, thread) in &asked.echoes {
        statement.push(vec![account.into(), thread.into()]);
    }
    for row in &statement.all(connection).await? {
        let declaration: Declaration = json(row, "declaration")?;
        if !declaration.bare_echoes {
            continue;
        }
        let thread = (get(row, "account")?, get(row, "thread_name")?);
        let ours = (reference(row)?, json(row, "content")?);
        context.in_flight.entry(thread).or_default().push(ours);
    }
    Ok(())
}

async fn read_threads(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let mut statement = rows(
        "SELECT c.id, c.account, c.thread_name FROM {rows}
         JOIN conversations AS c ON c.account = v.column1 AND c.thread_name = v.column2
         WHERE c.thread_name IS NOT NULL",
        "reading conversations by thread name",
    );
    for (account, thread) in &asked.threads {
        statement.push(vec![account.into(), thread.into()]);
    }
    for row in &statement.all(connection).await? {
        let id = parsed(row, "id", ConversationId::parse)?;
        context
            .threads
            .insert((get(row, "account")?, get(row, "thread_name")?), id);
    }
    Ok(())
}

async fn read_conversations(
    connection: &mut Connection,
    ids: &BTreeSet<ConversationId>,
    context: &mut Context,
) -> Result<(), Error> {
    let found = rows(
        concat!(
            "SELECT ",
            conversation_columns!(),
            " FROM {rows} JOIN conversations AS c ON c.id = v.column1"
        ),
        "reading conversations",
    )
    .of(ids.iter().map(ConversationId::as_str))
    .all(connection)
    .await?;
    for row in &found {
        let conversation = conversation_of(row)?;
        context.conversations.insert(conversation.id.clone(), conversation);
    }
    Ok(())
}

async fn read_tickets(connection: &mut Connection, context: &mut Context) -> Result<(), Error> {
    let ids: BTreeSet<&TicketId> = context
        .conversations
        .values()
        .filter_map(|conversation| conversation.ticket_id.as_ref())
        .collect();
    let found = rows(
        "SELECT t.snapshot FROM {rows} JOIN tickets AS t ON t.id = v.column1",
        "reading tickets",
    )
    .of(ids.into_iter().map(TicketId::as_str))
    .all(connection)
    .await?;
    for row in &found {
        let ticket: Ticket = json(row, "snapshot")?;
        context.tickets.insert(ticket.id.clone(), ticket);
    }
    Ok(())
}

/// The latest open ones of the senders. A monitoring system may have thousands
/// open, so the index is read from its end and only as far as needed.
async fn read_open_tickets(connection: &mut Connection, context: &mut Context) -> Result<(), Error> {
    let contacts: BTreeSet<&ContactId> = context.circles.contacts.keys().collect();
    let found = rows(
        "SELECT t.contact_id, t.snapshot FROM {rows} JOIN tickets AS t ON t.contact_id = v.column1 AND t.is_open = 1
             AND t.opened_at >= COALESCE((SELECT o.opened_at FROM tickets AS o
                 WHERE o.contact_id = v.column1 AND o.is_open = 1 ORDER BY o.opened_at DESC LIMIT 1 OFFSET 19), 0)
         ORDER BY t.opened_at DESC, t.id DESC",
        "reading open tickets",
    )
    .of(contacts.into_iter().map(ContactId::as_str))
    .all(connection)
    .await?;
    let mut seen: HashMap<String, usize> = HashMap::new();
    for row in &found {
        let count = seen.entry(get(row, "contact_id")?).or_default();
        *count += 1;
        if *count <= OPEN_TICKETS {
            let ticket: Ticket = json(row, "snapshot")?;
            context.tickets.insert(ticket.id.clone(), ticket);
        }
    }
    Ok(())
}

/// Automatic replies sent in each conversation.
async fn read_budgets_of_conversations(connection: &mut Connection, context: &mut Context) -> Result<(), Error> {
    let found = rows(
        "SELECT r.conversation_id, COUNT(*) AS replies FROM {rows}
         JOIN automatic_replies AS r ON r.conversation_id = v.column1 GROUP BY r.conversation_id",
        "reading budgets of conversations",
    )
    .of(context.conversations.keys().map(ConversationId::as_str))
    .all(connection)
    .await?;
    for row in &found {
        let id = parsed(row, "conversation_id", ConversationId::parse)?;
        context.replies_in_conversation.insert(id, get(row, "replies")?);
    }
    Ok(())
}

/// Automatic replies sent to each address today. Whether the address was verified
/// makes no difference to a budget.
async fn read_budgets_of_addresses(
    connection: &mut Connection,
    asked: &Asked,
    context: &mut Context,
) -> Result<(), Error> {
    let now = Moment::from(SystemTime::now());
    let today = now.plus_ms(-now.as_ms().rem_euclid(24 * 60 * 60 * 1000));
    let addresses: BTreeSet<(&str, &str)> = asked
        .senders
        .iter()
        .map(|sender| (sender.scheme.as_str(), sender.address.as_str()))
        .collect();
    let mut statement = rows(
        "SELECT r.scheme, r.address, COUNT(*) AS replies FROM {rows} JOIN automatic_replies AS r
         ON r.scheme = v.column1 AND r.address = v.column2 AND r.sent_at >= v.column3 GROUP BY r.scheme, r.address",
        "reading budgets of addresses",
    );
    for (scheme, address) in addresses {
        statement.push(vec![scheme.into(), address.into(), today.into()]);
    }
    for row in &statement.all(connection).await? {
        let (scheme, address): (String, String) = (get(row, "scheme")?, get(row, "address")?);
        let replies: i64 = get(row, "replies")?;
        for verified in [false, true] {
            let identity = Identity {
                scheme: scheme.clone(),
                address: address.clone(),
                verified,
            };
            context.replies_today.insert(identity, replies);
        }
    }
    Ok(())
}
