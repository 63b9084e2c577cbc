//! Attachments whose bytes are still to be fetched. A row leaves when they are here
//! or lost; which of it stands in the message.
//!
//! A file is known by its source, wherever it stands: in the message as it was
//! written, in a change that brought it later, and in the message as it stands now.
//! A claim moves the row's due moment on, so whoever dies leaves nothing behind;
//! two that fetch the same do no harm, and only the latest claim settles.

use model::change::{Change, Changed};
use model::event::{Attachment, AttachmentState, Message};
use model::id::{MessageId, sha256_hex};
use model::time::Moment;

use crate::connection::{Connection, Transaction};
use crate::outbox::{announce, lock_conversation};
use crate::sql::{get, json, json_if_any, parsed, sql, to_json};
use crate::write::insert_uses;
use crate::{Error, Store};

/// How often a settlement is tried again that another writer got in the way of.
const TRIES: usize = 5;

/// An attachment to be fetched.
#[derive(Clone, Debug)]
pub struct ClaimedMedia {
    pub message_id: MessageId,
    /// With the message's id, the row's key.
    pub source_sha256: String,
    /// How often it was tried, this time included; `settle_media` checks it.
    pub attempts: i64,
    pub attachment: Attachment,
    /// Bytes of the message's attachments that are here already.
    pub present_bytes: u64,
}

/// What became of an attempt to fetch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaOutcome {
    /// The bytes are a blob.
    Here {
        media_type: String,
        size_bytes: u64,
        sha256: String,
    },
    /// They cannot be had: says why.
    Lost { reason: String },
    /// Try again at this moment.
    Retry { at: Moment },
}

impl Store {
    /// Accounts with something to fetch now.
    pub async fn accounts_with_due_media(&self, now: Moment) -> Result<Vec<String>, Error> {
        let statement = sql(
            "SELECT DISTINCT account FROM media WHERE due_at <= $1",
            "looking for files to fetch",
        )
        .bind(now);
        self.read_all(statement, |row| get(row, "account")).await
    }

    /// Claims up to `limit` due rows of an account; they fall due again at `until`.
    pub async fn claim_media(
        &self,
        account: &str,
        now: Moment,
        until: Moment,
        limit: i64,
    ) -> Result<Vec<ClaimedMedia>, Error> {
        let doing = "claiming files to fetch";
        let mut transaction = self.begin(doing).await?;
        let claimed = sql(
            "UPDATE media SET due_at = $1, attempts = attempts + 1
             WHERE due_at <= $2 AND (message_id, source_sha256) IN (
                 SELECT message_id, source_sha256 FROM media WHERE account = $3 AND due_at <= $4
                 ORDER BY due_at, message_id, source_sha256 LIMIT $5)
             RETURNING message_id, source_sha256, attempts",
            doing,
        )
        .bind(until)
        .bind(now)
        .bind(account)
        .bind(now)
        .bind(limit)
        .all(&mut transaction)
        .await?;
        let mut found = Vec::new();
        for row in &claimed {
            let message_id = parsed(row, "message_id", MessageId::parse)?;
            let (source_sha256, attempts) = (get(row, "source_sha256")?, get(row, "attempts")?);
            found.extend(claimed_media(&mut transaction, message_id, source_sha256, attempts).await?);
        }
        transaction.commit(doing).await?;
        Ok(found)
    }

    /// Writes the outcome of a claim, and announces it. `false`: somebody else has the
    /// row, or it is gone; nothing was written.
    pub async fn settle_media(
        &self,
        claimed: &ClaimedMedia,
        outcome: &MediaOutcome,
        now: Moment,
    ) -> Result<bool, Error> {
        let mut tries = 1;
        loop {
            match self.try_settle_media(claimed, outcome, now).await {
                Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
                settled => return settled,
            }
        }
    }

    async fn try_settle_media(
        &self,
        claimed: &ClaimedMedia,
        outcome: &MediaOutcome,
        now: Moment,
    ) -> Result<bool, Error> {
        let doing = "settling a file";
        let mut transaction = self.begin(doing).await?;
        let (message_id, source_sha256) = (&claimed.message_id, &claimed.source_sha256);
        let is_settled = match outcome {
            MediaOutcome::Retry { at } => {
                let statement = sql(
                    "UPDATE media SET due_at = $1 WHERE message_id = $2 AND source_sha256 = $3 AND attempts = $4",
                    doing,
                );
                let statement = statement.bind(*at).bind(message_id.as_str());
                let statement = statement.bind(source_sha256).bind(claimed.attempts);
                statement.execute(&mut transaction).await? == 1
            }
            MediaOutcome::Here { .. } | MediaOutcome::Lost { .. } => {
                let settle = |attachment: &mut Attachment| outcome.settle(attachment);
                change_attachments(&mut transaction, message_id, source_sha256, outcome.kind(), now, settle).await?
                    && take_out(&mut transaction, claimed).await?
            }
        };
        if let MediaOutcome::Here { sha256, .. } = outcome
            && is_settled
        {
            let uses = [(sha256.as_str(), message_id.as_str())].into();
            insert_uses(&mut transaction, uses).await?;
        }
        // An erased message has lost its rows and its attachments.
        match is_settled {
            true => transaction.commit(doing).await?,
            false => transaction.rollback().await,
        }
        Ok(is_settled)
    }

    /// A person's word on a lost attachment, by its place in the message: fetch it
    /// again. `None`: there is no such attachment; `Some(false)`: it is not lost, or
    /// nobody knows where it was.
    pub async fn fetch_again(&self, message_id: &MessageId, place: usize, now: Moment) -> Result<Option<bool>, Error> {
        let doing = "fetching a file again";
        let mut transaction = self.begin(doing).await?;
        let Some(written) = Written::read(&mut transaction, message_id).await? else {
            return Ok(None);
        };
        let Some(attachment) = written.stands().attachments.get(place) else {
            return Ok(None);
        };
        let source = attachment.source.as_deref();
        let Some(source) = source.filter(|_| attachment.state() == AttachmentState::Lost) else {
            return Ok(Some(false));
        };
        let key = sha256_hex(source.as_bytes());
        let forgive = |attachment: &mut Attachment| attachment.lost = None;
        change_attachments(&mut transaction, message_id, &key, "attachment.pending", now, forgive).await?;
        sql(
            "INSERT INTO media (message_id, source_sha256, account, due_at, attempts) VALUES ($1, $2, $3, $4, 0)
             ON CONFLICT DO NOTHING",
            doing,
        )
        .bind(message_id.as_str())
        .bind(key)
        .bind(written.account)
        .bind(now)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await?;
        Ok(Some(true))
    }

    /// Attachments that wait to be fetched.
    pub async fn media_pending(&self) -> Result<i64, Error> {
        let statement = sql("SELECT COUNT(*) AS waiting FROM media", "counting files to fetch");
        let counts: Vec<i64> = self.read_all(statement, |row| get(row, "waiting")).await?;
        Ok(counts.into_iter().sum())
    }
}

impl MediaOutcome {
    /// As announcements name it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Here { .. } => "attachment.fetched",
            Self::Lost { .. } => "attachment.lost",
            Self::Retry { .. } => "attachment.pending",
        }
    }

    fn settle(&self, attachment: &mut Attachment) {
        match self {
            Self::Here {
                media_type,
                size_bytes,
                sha256,
            } => {
                attachment.media_type.clone_from(media_type);
                attachment.size_bytes = *size_bytes;
                attachment.sha256.clone_from(sha256);
                attachment.lost = None;
            }
            Self::Lost { reason } => attachment.lost = Some(reason.replace('\0', "")),
            Self::Retry { .. } => {}
        }
    }
}

/// A message that is not erased, as it was written and as it stands.
struct Written {
    account: String,
    content: Message,
    changed: Option<(Message, Changed)>,
}

impl Written {
    async fn read(connection: &mut Connection, message_id: &MessageId) -> Result<Option<Self>, Error> {
        let row = sql(
            "SELECT account, content, changed FROM messages WHERE id = $1 AND erased_at IS NULL",
            "reading a message",
        )
        .bind(message_id.as_str())
        .first(connection)
        .await?;
        let Some(row) = &row else { return Ok(None) };
        Ok(Some(Self {
            account: get(row, "account")?,
            content: json(row, "content")?,
            changed: json_if_any(row, "changed")?,
        }))
    }

    fn stands(&self) -> &Message {
        self.changed.as_ref().map_or(&self.content, |(message, _)| message)
    }
}

/// What is to be fetched; a row without a pending attachment is of no use.
async fn claimed_media(
    transaction: &mut Transaction,
    message_id: MessageId,
    source_sha256: String,
    attempts: i64,
) -> Result<Option<ClaimedMedia>, Error> {
    let written = Written::read(transaction, &message_id).await?;
    let attachments = written
        .map(|written| written.stands().attachments.clone())
        .unwrap_or_default();
    let present_bytes = attachments
        .iter()
        .filter(|attachment| attachment.state() == AttachmentState::Here)
        .fold(0, |sum: u64, attachment| sum.saturating_add(attachment.size_bytes));
    let mut claimed = ClaimedMedia {
        message_id,
        source_sha256,
        attempts,
        attachment: Attachment::default(),
        present_bytes,
    };
    let is_meant = |attachment: &Attachment| {
        attachment.state() == AttachmentState::Pending && is_from(attachment, &claimed.source_sha256)
    };
    let Some(attachment) = attachments.into_iter().find(is_meant) else {
        take_out(transaction, &claimed).await?;
        return Ok(None);
    };
    claimed.attachment = attachment;
    Ok(Some(claimed))
}

fn is_from(attachment: &Attachment, source_sha256: &str) -> bool {
    let source = attachment.source.as_deref();
    source.is_some_and(|source| sha256_hex(source.as_bytes()) == source_sha256)
}

/// Whether the row is still the claim's.
async fn take_out(transaction: &mut Transaction, claimed: &ClaimedMedia) -> Result<bool, Error> {
    let removed = sql(
        "DELETE FROM media WHERE message_id = $1 AND source_sha256 = $2 AND attempts = $3",
        "settling a file",
    )
    .bind(claimed.message_id.as_str())
    .bind(&claimed.source_sha256)
    .bind(claimed.attempts)
    .execute(transaction)
    .await?;
    Ok(removed == 1)
}

/// Changes the attachments of a message that come from this source and are not
/// here, wherever they stand, and announces it. `false`: there is none.
async fn change_attachments(
    transaction: &mut Transaction,
    message_id: &MessageId,
    source_sha256: &str,
    kind: &str,
    now: Moment,
    change: impl Fn(&mut Attachment),
) -> Result<bool, Error> {
    let doing = "changing an attachment";
    // The conversation first, as all writers lock it.
    let Some(conversation) = lock_conversation(transaction, message_id).await? else {
        return Ok(false);
    };
    let Some(mut written) = Written::read(transaction, message_id).await? else {
        return Ok(false);
    };
    let change_all = |attachments: &mut [Attachment]| {
        let meant = attachments
            .iter_mut()
            .filter(|one| one.state() != AttachmentState::Here && is_from(one, source_sha256));
        meant.map(&change).count()
    };
    let mut count = change_all(&mut written.content.attachments);
    if let Some((stands, _)) = &mut written.changed {
        count += change_all(&mut stands.attachments);
    }
    if count == 0 {
        return Ok(false);
    }
    let changed = written
        .changed
        .as_ref()
        .map(|changed| to_json(changed, doing))
        .transpose()?;
    sql("UPDATE messages SET content = $1, changed = $2 WHERE id = $3", doing)
        .bind(to_json(&written.content, doing)?)
        .bind(changed)
        .bind(message_id.as_str())
        .execute(transaction)
        .await?;
    let found = sql("SELECT id, content FROM message_changes WHERE message_id = $1", doing)
        .bind(message_id.as_str())
        .all(transaction)
        .await?;
    for row in &found {
        let mut brought: Change = json(row, "content")?;
        if let Change::AttachmentsAdded { attachments } = &mut brought
            && change_all(attachments) > 0
        {
            sql("UPDATE message_changes SET content = $1 WHERE id = $2", doing)
                .bind(to_json(&brought, doing)?)
                .bind(get::<String>(row, "id")?)
                .execute(transaction)
                .await?;
        }
    }
    announce(transaction, message_id, &conversation, kind, now).await
}
