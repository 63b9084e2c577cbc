//! Reads of contacts: who is one person, by what they are known, what they claim.

use std::collections::{BTreeSet, HashMap};

use sqlx::any::AnyRow;

use model::contact::merge::{Circles, Merge};
use model::contact::{Claim, Contact, Identity, Owned};
use model::conversation::Conversation;
use model::id::{ContactId, MergeId, MessageId};
use model::ticket::Ticket;
use model::time::Moment;

use crate::connection::Connection;
use crate::conversations::{conversation_columns, conversation_of};
use crate::sql::{get, json, json_if_any, moment, parsed, parsed_if_any, rows, sql};
use crate::{Error, Store};

/// Columns of `contacts AS k`.
macro_rules! contact_columns {
    () => {
        "k.id, k.name, k.scheme, k.address, k.verified, k.created_at, k.head_id, k.version"
    };
}

pub(crate) use contact_columns;

/// Who is known by an address or claims it.
const KNOWN_BY: &str = " AND k.id IN (SELECT COALESCE(o.head_id, o.id) FROM contacts AS o WHERE o.id IN (
     SELECT i.contact_id FROM identities AS i WHERE i.address = {}
     UNION SELECT q.contact_id FROM claims AS q WHERE q.address = {}))";

impl Store {
    /// Persons, the last met first, each by the contact that speaks for it; those
    /// before the cursor (met at, id). With `address`: only those who are known by it
    /// or claim it.
    pub async fn list_contacts(
        &self,
        address: Option<&str>,
        before: Option<(Moment, ContactId)>,
        limit: i64,
    ) -> Result<Vec<Contact>, Error> {
        let (created_at, id) = match &before {
            Some((created_at, id)) => (created_at.as_ms(), id.as_str()),
            None => (i64::MAX, ""),
        };
        let mut statement = sql(
            concat!(
                "SELECT ",
                contact_columns!(),
                " FROM contacts AS k
                 WHERE (k.created_at, k.id) < ($1, $2) AND (k.head_id IS NULL OR k.head_id = k.id)"
            ),
            "reading a list of contacts",
        )
        .bind(created_at)
        .bind(id);
        if let Some(address) = address {
            statement = statement.with(KNOWN_BY, address);
        }
        let statement = statement.with(" ORDER BY k.created_at DESC, k.id DESC LIMIT {}", limit);
        self.read_all(statement, contact_of).await
    }

    /// These contacts, all that are one person with them, and the merges among them.
    pub async fn circles(&self, ids: &[&ContactId]) -> Result<Circles, Error> {
        let mut connection = self.read("reading contacts").await?;
        let mut circles = Circles::default();
        circles.add(read_contacts(&mut connection, ids.iter().copied().collect()).await?);
        let members = read_members(&mut connection, circles.contacts.values()).await?;
        circles.add(members);
        circles.merges = read_merges(&mut connection, circles.contacts.keys())
            .await?
            .into_iter()
            .collect();
        Ok(circles)
    }

    /// Who speaks for each of these contacts; one that is alone is left out.
    pub async fn heads_of_contacts(&self, ids: BTreeSet<&ContactId>) -> Result<HashMap<ContactId, ContactId>, Error> {
        let mut connection = self.read("reading who speaks for contacts").await?;
        let found = rows(
            "SELECT k.id, k.head_id FROM {rows} JOIN contacts AS k ON k.id = v.column1 WHERE k.head_id IS NOT NULL",
            "reading who speaks for contacts",
        )
        .of(ids.into_iter().map(ContactId::as_str))
        .all(&mut connection)
        .await?;
        let head = |row| {
            Ok((
                parsed(row, "id", ContactId::parse)?,
                parsed(row, "head_id", ContactId::parse)?,
            ))
        };
        found.iter().map(head).collect()
    }

    /// What these contacts are known by, and why.
    pub async fn identities_of(&self, ids: &[&ContactId]) -> Result<Vec<Owned>, Error> {
        let mut connection = self.read("reading identities").await?;
        let found = rows(
            "SELECT i.scheme, i.address, i.verified, i.contact_id, i.proof FROM {rows}
             JOIN identities AS i ON i.contact_id = v.column1 ORDER BY i.scheme, i.address, i.verified DESC",
            "reading identities",
        )
        .of(ids.iter().map(|id| id.as_str()))
        .all(&mut connection)
        .await?;
        let owned = |row| {
            Ok(Owned {
                identity: identity_of(row)?,
                contact_id: parsed(row, "contact_id", ContactId::parse)?,
                proof: json_if_any(row, "proof")?,
            })
        };
        found.iter().map(owned).collect()
    }

    /// What these contacts claim without proof, the latest first.
    pub async fn claims_of(&self, ids: &[&ContactId]) -> Result<Vec<Claim>, Error> {
        let mut connection = self.read("reading claims").await?;
        let found = rows(
            "SELECT q.contact_id, q.scheme, q.address, q.name, q.message_id, q.claimed_at FROM {rows}
             JOIN claims AS q ON q.contact_id = v.column1 ORDER BY q.claimed_at DESC, q.scheme, q.address",
            "reading claims",
        )
        .of(ids.iter().map(|id| id.as_str()))
        .all(&mut connection)
        .await?;
        let claim = |row| {
            Ok(Claim {
                contact_id: parsed(row, "contact_id", ContactId::parse)?,
                scheme: get(row, "scheme")?,
                address: get(row, "address")?,
                name: get(row, "name")?,
                message_id: parsed(row, "message_id", MessageId::parse)?,
                claimed_at: moment(row, "claimed_at")?,
            })
        };
        found.iter().map(claim).collect()
    }

    /// The conversations of these contacts, the latest 200 of them, in the order of
    /// their beginnings.
    pub async fn conversations_of(&self, ids: &[&ContactId]) -> Result<Vec<Conversation>, Error> {
        let mut connection = self.read("reading a contact's conversations").await?;
        let found = rows(
            concat!(
                "SELECT ",
                conversation_columns!(),
                " FROM {rows} JOIN conversations AS c ON c.contact_id = v.column1
                 ORDER BY c.last_message_at DESC, c.id LIMIT 200"
            ),
            "reading a contact's conversations",
        )
        .of(ids.iter().map(|id| id.as_str()))
        .all(&mut connection)
        .await?;
        let conversations: Result<Vec<_>, _> = found.iter().map(conversation_of).collect();
        let mut conversations = conversations?;
        conversations.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        Ok(conversations)
    }

    /// The tickets of these contacts, the latest 50, the newest first.
    pub async fn tickets_of(&self, ids: &[&ContactId]) -> Result<Vec<Ticket>, Error> {
        let mut connection = self.read("reading a contact's tickets").await?;
        let found = rows(
            "SELECT t.snapshot FROM {rows} JOIN tickets AS t ON t.contact_id = v.column1
             ORDER BY t.opened_at DESC, t.id DESC LIMIT 50",
            "reading a contact's tickets",
        )
        .of(ids.iter().map(|id| id.as_str()))
        .all(&mut connection)
        .await?;
        found.iter().map(|row| json(row, "snapshot")).collect()
    }
}

pub(crate) async fn read_contacts(
    connection: &mut Connection,
    ids: BTreeSet<&ContactId>,
) -> Result<Vec<Contact>, Error> {
    let found = rows(
        concat!(
            "SELECT ",
            contact_columns!(),
            " FROM {rows} JOIN contacts AS k ON k.id = v.column1"
        ),
        "reading contacts by id",
    )
    .of(ids.into_iter().map(ContactId::as_str))
    .all(connection)
    .await?;
    found.iter().map(contact_of).collect()
}

/// All contacts of those persons who are more than one contact.
pub(crate) async fn read_members(
    connection: &mut Connection,
    contacts: impl Iterator<Item = &Contact>,
) -> Result<Vec<Contact>, Error> {
    let heads: BTreeSet<&ContactId> = contacts.filter_map(|contact| contact.head.as_ref()).collect();
    let found = rows(
        concat!(
            "SELECT ",
            contact_columns!(),
            " FROM {rows} JOIN contacts AS k ON k.head_id = v.column1 WHERE k.head_id IS NOT NULL"
        ),
        "reading who is one person",
    )
    .of(heads.into_iter().map(ContactId::as_str))
    .all(connection)
    .await?;
    found.iter().map(contact_of).collect()
}

/// Every merge that one of these has a part in, undone ones too.
pub(crate) async fn read_merges(
    connection: &mut Connection,
    contacts: impl Iterator<Item = &ContactId>,
) -> Result<Vec<(MergeId, Merge)>, Error> {
    let ids: BTreeSet<&ContactId> = contacts.collect();
    let texts = [
        "SELECT g.id, g.from_id, g.into_id, g.proof, g.merged_at, g.undone, g.version FROM {rows}
         JOIN contact_merges AS g ON g.from_id = v.column1",
        "SELECT g.id, g.from_id, g.into_id, g.proof, g.merged_at, g.undone, g.version FROM {rows}
         JOIN contact_merges AS g ON g.into_id = v.column1",
    ];
    let mut merges = Vec::new();
    for text in texts {
        let statement = rows(text, "reading merges").of(ids.iter().map(|id| id.as_str()));
        for row in &statement.all(connection).await? {
            let merge = merge_of(row)?;
            merges.push((merge.id.clone(), merge));
        }
    }
    Ok(merges)
}

pub(crate) fn contact_of(row: &AnyRow) -> Result<Contact, Error> {
    Ok(Contact {
        id: parsed(row, "id", ContactId::parse)?,
        name: get(row, "name")?,
        identity: identity_of(row)?,
        created_at: moment(row, "created_at")?,
        head: parsed_if_any(row, "head_id", ContactId::parse)?,
        version: get(row, "version")?,
    })
}

pub(crate) fn identity_of(row: &AnyRow) -> Result<Identity, Error> {
    Ok(Identity {
        scheme: get(row, "scheme")?,
        address: get(row, "address")?,
        verified: get::<i64>(row, "verified")? != 0,
    })
}

fn merge_of(row: &AnyRow) -> Result<Merge, Error> {
    Ok(Merge {
        id: parsed(row, "id", MergeId::parse)?,
        from: parsed(row, "from_id", ContactId::parse)?,
        into: parsed(row, "into_id", ContactId::parse)?,
        proof: json(row, "proof")?,
        merged_at: moment(row, "merged_at")?,
        undone: json_if_any(row, "undone")?,
        version: get(row, "version")?,
    })
}
