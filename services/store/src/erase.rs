//! Erasure: what was said in a conversation leaves the store; ids stay as
//! tombstones, so that a replay of the same events finds them known (C2).

use std::collections::BTreeSet;

use model::context::Announcement;
use model::conversation::Consent;
use model::id::{ConversationId, TicketId};
use model::ticket::{Actor, Ticket, TicketEvent, forget};
use model::time::Moment;
use serde_json::Value;

use crate::connection::{Connection, Transaction};
use crate::sql::{Statement, get, json, json_if_any, parsed, rows, sql, to_json};
use crate::write::{insert_ticket_events, update_tickets};
use crate::{Error, Store, announcements};

/// How often an erasure is tried again that another writer got in the way of.
const TRIES: usize = 5;

const DOING: &str = "erasing a conversation";

/// Parked inputs that became messages of the conversation: by the id, or the same bytes.
const ITS_PARKED: &str =
    "SELECT p.id FROM parked AS p WHERE p.id IN (SELECT id FROM messages WHERE conversation_id = $1)
     OR (length(p.raw) > 0 AND p.raw IN (
         SELECT raw FROM messages WHERE conversation_id = $2 AND raw IS NOT NULL))
     OR (p.raw IS NULL AND p.raw_request IN (
         SELECT raw_request FROM messages WHERE conversation_id = $3 AND raw IS NULL AND raw_request IS NOT NULL))";

/// What an erasure deletes by the conversation's id.
const DELETED: [&str; 7] = [
    "DELETE FROM blob_uses WHERE used_by IN (SELECT id FROM messages WHERE conversation_id = $1)",
    "DELETE FROM media WHERE message_id IN (SELECT id FROM messages WHERE conversation_id = $1)",
    "DELETE FROM traces WHERE message_id IN (SELECT id FROM messages WHERE conversation_id = $1)",
    "DELETE FROM message_changes WHERE message_id IN (SELECT id FROM messages WHERE conversation_id = $1)",
    // What people's requests were answered shows messages and tickets.
    "DELETE FROM requests WHERE answer LIKE '%' || $1 || '%'",
    "DELETE FROM outbox WHERE conversation_id = $1",
    // The count stays, for the budget of automatic replies.
    "UPDATE automatic_replies SET scheme = '', address = '' WHERE conversation_id = $1",
];

impl Store {
    /// Erases what was said in a conversation, by the word of a person: texts, raw
    /// input, and what its tickets have of it. Blobs that nothing else uses are
    /// listed for removal. The conversation begins a new epoch. `None`: there is no
    /// such conversation; `Some(false)`: there was nothing left to erase.
    pub async fn erase_conversation(
        &self,
        id: &ConversationId,
        person: &str,
        now: Moment,
    ) -> Result<Option<bool>, Error> {
        let mut tries = 1;
        let erased = loop {
            match self.try_erase(id, person, now).await {
                Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
                outcome => break outcome?,
            }
        };
        if erased == Some(true) {
            self.forget_pages().await;
        }
        Ok(erased)
    }

    /// Whether this message was erased.
    pub async fn is_erased(&self, id: &model::id::MessageId) -> Result<bool, Error> {
        let statement = sql(
            "SELECT id FROM messages WHERE id = $1 AND erased_at IS NOT NULL",
            "reading a message",
        )
        .bind(id.as_str());
        let found: Vec<String> = self.read_all(statement, |row| get(row, "id")).await?;
        Ok(!found.is_empty())
    }

    async fn try_erase(&self, id: &ConversationId, person: &str, now: Moment) -> Result<Option<bool>, Error> {
        let book = self.book().await?;
        let mut transaction = self.begin(DOING).await?;
        let locked = by_id(
            "UPDATE conversations SET version = version WHERE id = $1 RETURNING id",
            id,
        );
        if locked.first(&mut transaction).await?.is_none() {
            return Ok(None);
        }
        let left = by_id(
            "SELECT id FROM messages WHERE conversation_id = $1 AND erased_at IS NULL LIMIT 1",
            id,
        );
        if left.first(&mut transaction).await?.is_none() {
            transaction.rollback().await;
            return Ok(Some(false));
        }
        // SQLite would leave what is deleted in the free parts of its file.
        set_secure_delete(&mut transaction, "PRAGMA secure_delete = ON").await?;
        erase_parked(&mut transaction, id, now).await?;
        list_blobs(&mut transaction, id, now).await?;
        for text in DELETED {
            by_id(text, id).execute(&mut transaction).await?;
        }
        unlist_used_blobs(&mut transaction).await?;
        leave_tombstones(&mut transaction, id, now).await?;
        forget_consent(&mut transaction, id).await?;
        let told = begin_epoch(&mut transaction, id, person, now).await?;
        announcements::insert(&mut transaction, std::slice::from_ref(&told)).await?;
        for ticket_id in tickets_of(&mut transaction, id).await? {
            forget_in_ticket(&mut transaction, &ticket_id, id, person, now, &book.sla).await?;
        }
        set_secure_delete(&mut transaction, "PRAGMA secure_delete = OFF").await?;
        transaction.commit(DOING).await?;
        Ok(Some(true))
    }

    /// The journal of SQLite still holds the old pages; a reader in the way only
    /// delays this.
    async fn forget_pages(&self) {
        let Ok(mut connection) = self.write_alone(DOING).await else {
            return;
        };
        if !connection.is_postgres()
            && let Err(error) = connection.run_script("PRAGMA wal_checkpoint(TRUNCATE)", DOING).await
        {
            tracing::warn!(%error, "the journal could not be emptied after an erasure");
        }
    }
}

fn by_id(text: &'static str, id: &ConversationId) -> Statement {
    sql(text, DOING).bind(id.as_str())
}

async fn set_secure_delete(transaction: &mut Transaction, pragma: &'static str) -> Result<(), Error> {
    match transaction.is_postgres() {
        true => Ok(()),
        false => transaction.run_script(pragma, DOING).await,
    }
}

async fn erase_parked(transaction: &mut Transaction, id: &ConversationId, now: Moment) -> Result<(), Error> {
    let found = by_id(ITS_PARKED, id)
        .bind(id.as_str())
        .bind(id.as_str())
        .all(transaction)
        .await?;
    let ids: BTreeSet<String> = found.iter().map(|row| get(row, "id")).collect::<Result<_, _>>()?;
    let used = rows(
        "SELECT u.sha256 FROM {rows} JOIN blob_uses AS u ON u.used_by = v.column1",
        DOING,
    )
    .of(ids.iter())
    .all(transaction)
    .await?;
    for row in &used {
        let sha256: String = get(row, "sha256")?;
        sql(
            "INSERT INTO blob_removals (sha256, noted_at, due_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            DOING,
        )
        .bind(sha256)
        .bind(now)
        .bind(now)
        .execute(transaction)
        .await?;
    }
    for text in [
        "DELETE FROM blob_uses WHERE used_by IN (SELECT column1 FROM {rows})",
        "DELETE FROM parked WHERE id IN (SELECT column1 FROM {rows})",
    ] {
        rows(text, DOING).of(ids.iter()).execute(transaction).await?;
    }
    Ok(())
}

/// Lists the blobs of its messages for removal; who else uses one keeps it.
async fn list_blobs(transaction: &mut Transaction, id: &ConversationId, now: Moment) -> Result<(), Error> {
    sql(
        "INSERT INTO blob_removals (sha256, noted_at, due_at)
         SELECT DISTINCT u.sha256, CAST($1 AS BIGINT), CAST($2 AS BIGINT) FROM blob_uses AS u
         JOIN messages AS m ON m.id = u.used_by WHERE m.conversation_id = $3
         ON CONFLICT (sha256) DO UPDATE SET noted_at = excluded.noted_at, due_at = excluded.due_at",
        DOING,
    )
    .bind(now)
    .bind(now)
    .bind(id.as_str())
    .execute(transaction)
    .await?;
    Ok(())
}

/// What others use as well stays, and need not be looked at again.
async fn unlist_used_blobs(transaction: &mut Transaction) -> Result<(), Error> {
    sql(
        "DELETE FROM blob_removals WHERE EXISTS (SELECT 1 FROM blob_uses AS u WHERE u.sha256 = blob_removals.sha256)",
        DOING,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

async fn leave_tombstones(transaction: &mut Transaction, id: &ConversationId, now: Moment) -> Result<(), Error> {
    sql(
        "UPDATE messages SET erased_at = $1, content = '{}', changed = NULL, external_ids = '[]', sequence = NULL,
             delivery_error = NULL, request_sha256 = NULL, raw_request = NULL, raw = NULL
         WHERE conversation_id = $2 AND erased_at IS NULL",
        DOING,
    )
    .bind(now)
    .bind(id.as_str())
    .execute(transaction)
    .await?;
    Ok(())
}

/// Whether we may write stays, not how they said so.
async fn forget_consent(transaction: &mut Transaction, id: &ConversationId) -> Result<(), Error> {
    let row = by_id("SELECT consent FROM conversations WHERE id = $1", id)
        .first(transaction)
        .await?;
    let known: Option<Consent> = row.as_ref().map_or(Ok(None), |row| json_if_any(row, "consent"))?;
    let Some(mut consent) = known else { return Ok(()) };
    consent.reason.clear();
    sql("UPDATE conversations SET consent = $1 WHERE id = $2", DOING)
        .bind(to_json(&consent, DOING)?)
        .bind(id.as_str())
        .execute(transaction)
        .await?;
    Ok(())
}

/// The conversation goes on, empty, under the name that its channel knows it by.
async fn begin_epoch(
    transaction: &mut Transaction,
    id: &ConversationId,
    person: &str,
    now: Moment,
) -> Result<Announcement, Error> {
    let row = by_id(
        "UPDATE conversations SET subject = NULL, participants = '[]', suggested = NULL, epoch = epoch + 1,
             last_sequence = 0, version = version + 1
         WHERE id = $1 RETURNING account, channel, epoch, version",
        id,
    )
    .first(transaction)
    .await?;
    let row = row.ok_or_else(|| Error::Corrupt("a locked conversation is gone".to_owned()))?;
    let (account, channel): (String, String) = (get(&row, "account")?, get(&row, "channel")?);
    let epoch: i64 = get(&row, "epoch")?;
    Ok(Announcement {
        subject: id.to_string(),
        version: get(&row, "version")?,
        kind: "conversation.erased".to_owned(),
        occurred_at: now,
        data: serde_json::json!({ "account": account, "channel": channel, "epoch": epoch, "person": person }),
    })
}

/// Those that it opened or came to, in the order in which all writers lock them.
async fn tickets_of(transaction: &mut Transaction, id: &ConversationId) -> Result<BTreeSet<TicketId>, Error> {
    let found = by_id(
        "SELECT DISTINCT ticket_id FROM ticket_events WHERE conversation_id = $1",
        id,
    )
    .all(transaction)
    .await?;
    found
        .iter()
        .map(|row| parsed(row, "ticket_id", TicketId::parse))
        .collect()
}

async fn forget_in_ticket(
    transaction: &mut Transaction,
    ticket_id: &TicketId,
    id: &ConversationId,
    person: &str,
    now: Moment,
    book: &model::sla::Book,
) -> Result<(), Error> {
    let locked = sql(
        "UPDATE tickets SET version = version WHERE id = $1 RETURNING snapshot",
        DOING,
    )
    .bind(ticket_id.as_str())
    .first(transaction)
    .await?;
    let Some(row) = locked else { return Ok(()) };
    let ticket: Ticket = json(&row, "snapshot")?;
    let found = sql(
        "SELECT content FROM ticket_events WHERE ticket_id = $1 ORDER BY version",
        DOING,
    )
    .bind(ticket_id.as_str())
    .all(transaction)
    .await?;
    let events: Vec<TicketEvent> = found.iter().map(|row| json(row, "content")).collect::<Result<_, _>>()?;
    let (changes, lost) = forget(&ticket, events, id, Actor::Person(person.to_owned()), now, book);
    for event in lost {
        sql(
            "UPDATE ticket_events SET content = $1 WHERE ticket_id = $2 AND version = $3",
            DOING,
        )
        .bind(to_json(&event, DOING)?)
        .bind(ticket_id.as_str())
        .bind(event.version)
        .execute(transaction)
        .await?;
    }
    sql("DELETE FROM requests WHERE answer LIKE '%' || $1 || '%'", DOING)
        .bind(&ticket.number)
        .execute(transaction)
        .await?;
    update_tickets(transaction, &changes).await?;
    insert_ticket_events(transaction, &changes.ticket_events).await?;
    forget_notes(transaction, ticket_id).await?;
    announcements::insert(transaction, &changes.announcements).await?;
    Ok(())
}

/// What was noted with a resolution may still wait to be announced.
async fn forget_notes(connection: &mut Connection, ticket_id: &TicketId) -> Result<(), Error> {
    let found = sql(
        "SELECT version, data, more FROM announcements WHERE subject = $1",
        DOING,
    )
    .bind(ticket_id.as_str())
    .all(connection)
    .await?;
    for row in &found {
        let mut data: Value = json(row, "data")?;
        let mut more: Option<Vec<Value>> = json_if_any(row, "more")?;
        let in_more = more.iter_mut().flatten().filter_map(|told| told.get_mut("data"));
        let forgotten = std::iter::once(&mut data).chain(in_more).filter_map(|data| {
            let notes = data.pointer_mut("/change/resolution/notes")?;
            Some(std::mem::take(notes))
        });
        if forgotten.filter(|notes| !notes.is_null()).count() == 0 {
            continue;
        }
        sql(
            "UPDATE announcements SET data = $1, more = $2 WHERE subject = $3 AND version = $4",
            DOING,
        )
        .bind(to_json(&data, DOING)?)
        .bind(more.map(|more| to_json(&more, DOING)).transpose()?)
        .bind(ticket_id.as_str())
        .bind(get::<i64>(row, "version")?)
        .execute(connection)
        .await?;
    }
    Ok(())
}
