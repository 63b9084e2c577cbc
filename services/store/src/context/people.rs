//! Whose a batch's messages may be, and who is one person.

use std::collections::BTreeSet;

use model::contact::{Identity, normalise};
use model::context::Context;
use model::conversation::Conversation;
use model::event::Message;
use model::id::{ContactId, MessageId};

use super::Asked;
use crate::Error;
use crate::connection::Connection;
use crate::contacts::{contact_columns, contact_of, identity_of, read_contacts, read_members, read_merges};
use crate::sql::{get, json, parsed, rows};

/// Reads contacts, whole persons at a time. Merges and claims are looked for only
/// where a message of the batch may prove something.
pub(super) async fn read(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    read_owners(connection, asked, context).await?;
    read_claims(connection, asked, context).await?;
    if !context.claims.is_empty() {
        let claimants: BTreeSet<&ContactId> = context.claims.iter().map(|(contact_id, _, _)| contact_id).collect();
        let found = read_contacts(connection, claimants).await?;
        context.circles.add(found);
        read_sent_to(connection, context).await?;
    }
    read_partners(connection, asked, context).await?;
    let members = read_members(connection, context.circles.contacts.values()).await?;
    context.circles.add(members);
    if asked.is_vouched || !context.claims.is_empty() {
        let merges = read_merges(connection, context.circles.contacts.keys()).await?;
        context.circles.merges.extend(merges);
    }
    if asked.is_vouched {
        read_identities(connection, context).await?;
    }
    Ok(())
}

/// Whose calls have ended, and whose links were opened.
async fn read_partners(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let references = asked
        .called
        .iter()
        .filter_map(|id| context.external_ids.get(id))
        .flatten();
    let called = references.map(|reference| &reference.conversation_id);
    let conversations = called.chain(&asked.opened);
    let conversations = conversations.filter_map(|id| context.conversations.get(id));
    let partners: BTreeSet<&ContactId> = conversations.map(|conversation| &conversation.contact_id).collect();
    if partners.is_empty() {
        return Ok(());
    }
    let found = read_contacts(connection, partners).await?;
    context.circles.add(found);
    Ok(())
}

async fn read_owners(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let mut statement = rows(
        concat!(
            "SELECT i.scheme AS i_scheme, i.address AS i_address, i.verified AS i_verified, ",
            contact_columns!(),
            " FROM {rows} JOIN identities AS i
                 ON i.scheme = v.column1 AND i.address = v.column2 AND i.verified = v.column3
             JOIN contacts AS k ON k.id = i.contact_id"
        ),
        "reading contacts",
    );
    for identity in &asked.identities {
        statement.push(vec![
            identity.scheme.as_str().into(),
            identity.address.as_str().into(),
            identity.verified.into(),
        ]);
    }
    for row in &statement.all(connection).await? {
        let identity = Identity {
            scheme: get(row, "i_scheme")?,
            address: get(row, "i_address")?,
            verified: get::<i64>(row, "i_verified")? != 0,
        };
        let contact = contact_of(row)?;
        context.contacts.insert(identity, contact.id.clone());
        context.circles.contacts.insert(contact.id.clone(), contact);
    }
    Ok(())
}

/// Claims of the address from which a message of ours is answered, by the contact
/// of that message's conversation.
async fn read_claims(connection: &mut Connection, asked: &Asked, context: &mut Context) -> Result<(), Error> {
    let mut claims = BTreeSet::new();
    for (sender, questions) in &asked.answers {
        for id in questions {
            if let Some(conversation) = conversation_of(context, id) {
                claims.insert((&conversation.contact_id, &sender.scheme, &sender.address));
            }
        }
    }
    let mut statement = rows(
        "SELECT q.contact_id, q.scheme, q.address FROM {rows} JOIN claims AS q
         ON q.contact_id = v.column1 AND q.scheme = v.column2 AND q.address = v.column3",
        "reading claims",
    );
    for (contact_id, scheme, address) in claims {
        statement.push(vec![contact_id.as_str().into(), scheme.into(), address.into()]);
    }
    for row in &statement.all(connection).await? {
        let contact_id = parsed(row, "contact_id", ContactId::parse)?;
        context
            .claims
            .insert((contact_id, get(row, "scheme")?, get(row, "address")?));
    }
    Ok(())
}

/// To whom alone each quoted message of ours went, if its contact claims something.
async fn read_sent_to(connection: &mut Connection, context: &mut Context) -> Result<(), Error> {
    let claimants: BTreeSet<&ContactId> = context.claims.iter().map(|(contact_id, _, _)| contact_id).collect();
    let is_asked = |id: &&MessageId| {
        conversation_of(context, id).is_some_and(|conversation| claimants.contains(&conversation.contact_id))
    };
    let found = rows(
        "SELECT m.id, m.content FROM {rows} JOIN messages AS m ON m.id = v.column1
         WHERE m.direction = 'outbound' AND m.erased_at IS NULL",
        "reading where messages went",
    )
    .of(context.signed_messages.keys().filter(is_asked).map(MessageId::as_str))
    .all(connection)
    .await?;
    for row in &found {
        let message: Message = json(row, "content")?;
        if let [recipient] = message.recipients.as_slice() {
            let id = parsed(row, "id", MessageId::parse)?;
            context.sent_to.insert(id, normalise(&recipient.address));
        }
    }
    Ok(())
}

/// All that the contacts are known by: whom a channel vouches for must not be
/// somebody else.
async fn read_identities(connection: &mut Connection, context: &mut Context) -> Result<(), Error> {
    let found = rows(
        "SELECT i.scheme, i.address, i.verified, i.contact_id FROM {rows}
         JOIN identities AS i ON i.contact_id = v.column1",
        "reading identities",
    )
    .of(context.circles.contacts.keys().map(ContactId::as_str))
    .all(connection)
    .await?;
    for row in &found {
        let contact_id = parsed(row, "contact_id", ContactId::parse)?;
        context.contacts.insert(identity_of(row)?, contact_id);
    }
    Ok(())
}

fn conversation_of<'a>(context: &'a Context, ours: &MessageId) -> Option<&'a Conversation> {
    let reference = context.signed_messages.get(ours)?;
    context.conversations.get(&reference.conversation_id)
}
