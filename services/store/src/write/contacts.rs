//! Contacts, their identities and claims, and who is one person.

use std::collections::BTreeMap;

use model::contact::merge::Merge;
use model::context::{Changes, Replacing};
use model::id::ContactId;

use super::{insert_all, is_new};
use crate::Error;
use crate::connection::Connection;
use crate::sql::{Value, rows, to_json};

/// `false` if one is there already.
pub(super) async fn insert(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO contacts (id, name, scheme, address, verified, created_at)
         SELECT column1, column2, column3, column4, column5, column6 FROM {rows} WHERE column1 IS NOT NULL",
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

/// Who speaks for them now. `false` if somebody else has merged or parted one.
pub(super) async fn update(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "UPDATE contacts AS t SET version = v.column3, head_id = v.column4
         FROM {rows} WHERE t.id = v.column1 AND t.version = v.column2",
        "merging and parting contacts",
    );
    for (id, replacing) in &changes.regrouped {
        statement.push(vec![
            id.as_str().into(),
            replacing.expected_version.into(),
            replacing.row.version.into(),
            replacing.row.head.as_ref().map(ContactId::as_str).into(),
        ]);
    }
    insert_all(statement, connection).await
}

/// `false` if one has an owner already.
pub(super) async fn insert_identities(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO identities (scheme, address, verified, contact_id, proof)
         SELECT column1, column2, column3, column4, column5 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing identities",
    );
    let identities: BTreeMap<_, _> = changes
        .identities
        .iter()
        .map(|owned| (&owned.identity, owned))
        .collect();
    for (identity, owned) in identities {
        let proof = owned.proof.as_ref();
        statement.push(vec![
            identity.scheme.as_str().into(),
            identity.address.as_str().into(),
            identity.verified.into(),
            owned.contact_id.as_str().into(),
            proof.map(|proof| to_json(proof, "writing proofs")).transpose()?.into(),
        ]);
    }
    insert_all(statement, connection).await
}

/// What is claimed again stays as it was.
pub(super) async fn insert_claims(connection: &mut Connection, changes: &Changes) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO claims (contact_id, scheme, address, name, message_id, claimed_at)
         SELECT column1, column2, column3, column4, column5, column6 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing claims",
    );
    let key = |claim: &model::contact::Claim| (claim.contact_id.clone(), claim.scheme.clone(), claim.address.clone());
    let mut claims: Vec<_> = changes.claims.iter().collect();
    // The first of those that say the same.
    claims.sort_by_cached_key(|claim| key(claim));
    claims.dedup_by_key(|claim| key(claim));
    for claim in claims {
        statement.push(vec![
            claim.contact_id.as_str().into(),
            claim.scheme.as_str().into(),
            claim.address.as_str().into(),
            claim.name.as_deref().into(),
            claim.message_id.as_str().into(),
            claim.claimed_at.into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// `false` if these two are or were merged already.
pub(super) async fn insert_merges(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO contact_merges (id, version, proof, merged_at, undone_at, undone, from_id, into_id)
         SELECT column1, column3, column4, column5, column6, column7, column8, column9
         FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing merges",
    );
    for replacing in changes.merges.values().filter(is_new) {
        let mut row = merge_row(replacing)?;
        row.extend([replacing.row.from.as_str().into(), replacing.row.into.as_str().into()]);
        statement.push(row);
    }
    insert_all(statement, connection).await
}

/// `false` if somebody else has changed one.
pub(super) async fn update_merges(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "UPDATE contact_merges AS t SET version = v.column3, proof = v.column4, merged_at = v.column5,
             undone_at = v.column6, undone = v.column7
         FROM {rows} WHERE t.id = v.column1 AND t.version = v.column2",
        "changing merges",
    );
    for replacing in changes.merges.values().filter(|row| !is_new(row)) {
        statement.push(merge_row(replacing)?);
    }
    insert_all(statement, connection).await
}

/// The columns that change, after the id and the version that they replace.
fn merge_row(replacing: &Replacing<Merge>) -> Result<Vec<Value>, Error> {
    let merge = &replacing.row;
    let undone = merge.undone.as_ref();
    Ok(vec![
        merge.id.as_str().into(),
        replacing.expected_version.into(),
        merge.version.into(),
        to_json(&merge.proof, "writing merges")?.into(),
        merge.merged_at.into(),
        undone.map(|undone| undone.at).into(),
        undone
            .map(|undone| to_json(undone, "writing merges"))
            .transpose()?
            .into(),
    ])
}
