//! `/v1/contacts`: who writes to us, by what they are known, and who is one person.

mod view;

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use model::contact::merge::{Circles, Undone};
use model::contact::{Claim, Owned, Proof, normalise};
use model::context::Changes;
use model::id::{ContactId, MergeId};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::error::{BodyProblems, Error, Problem, Problems};
use crate::extract::{Body, IdempotencyKey, Path, Query};
use crate::once::{self, Answer, Named};
use crate::page::{self, Page};
use crate::token::Person;
use crate::{ATTEMPTS, Desk, now};
pub use view::ConversationSummary;
use view::{ContactDetail, ContactView};

/// What a list of contacts is narrowed by.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// An address or number: only those who are known by it, or say that it is theirs.
    address: Option<String>,
    /// How many items at most: 1 to 200, 50 if not given.
    limit: Option<i64>,
    /// `next` of the page before.
    after: Option<String>,
}

/// `merge`: with whom.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MergeWith {
    /// `con_…`
    other: String,
    /// Why they are one person.
    #[serde(default)]
    reason: Option<String>,
}

/// `part`: which merge is taken back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Part {
    /// `mrg_…`, one of the contact's `merges`.
    merge: String,
    /// Why they are not one person.
    #[serde(default)]
    reason: Option<String>,
}

/// Contacts, the last met first; several that are one person stand as one.
#[utoipa::path(get, path = "/v1/contacts", operation_id = "list_contacts", tag = "contacts", params(Filter),
    responses((status = 200, description = "A page of contacts", body = Page<ContactView>), Problems))]
pub async fn list(State(desk): State<Desk>, Query(filter): Query<Filter>) -> Result<Json<Page<ContactView>>, Error> {
    let limit = page::limit(filter.limit)?;
    let before = page::position(filter.after.as_deref(), |text| {
        page::moment_and_id(text, ContactId::parse)
    })?;
    let address = filter.address.as_deref().map(normalise);
    let contacts = desk.store.list_contacts(address.as_deref(), before, limit + 1).await?;
    let page = page::page(contacts, limit, |contact| {
        format!("{}:{}", contact.created_at.as_ms(), contact.id)
    });
    Ok(Json(page.map(Into::into)))
}

/// One contact with its identities, merges, conversations and tickets. Any of a person's contacts shows the person.
#[utoipa::path(get, path = "/v1/contacts/{id}", operation_id = "show_contact", tag = "contacts",
    params(("id" = String, Path, description = "`con_…`")),
    responses((status = 200, description = "The contact", body = ContactDetail), Problems))]
pub async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Json<ContactDetail>, Error> {
    let id = parse(&id)?;
    let circles = desk.store.circles(&[&id]).await?;
    Ok(Json(detail(&desk, &circles, &id).await?))
}

/// Says that two contacts are one person, by the word of who asks.
///
/// Answers the person. Nothing of both is lost: `part` brings back what was before.
#[utoipa::path(post, path = "/v1/contacts/{id}/merge", operation_id = "merge_contacts", tag = "contacts",
    params(
        ("id" = String, Path, description = "`con_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = once::KEY),
    ),
    request_body = MergeWith,
    responses((status = 200, description = "The person", body = ContactDetail), Problems, BodyProblems))]
pub async fn merge(
    State(desk): State<Desk>,
    Extension(Person(person)): Extension<Person>,
    Path(id): Path<String>,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Error> {
    let id = parse(&id)?;
    let named = Named::read(person.clone(), key, &format!("merge {id}"), &body);
    let MergeWith { other, reason } = body.read()?;
    let other = ContactId::parse(&other).ok_or_else(|| Error::invalid("invalid", "`other` is no id of a contact"))?;
    let reason = checked(reason)?;
    let proof = Proof::Person { person, reason };
    change(&desk, named.as_ref(), &id, &[&id, &other], |circles| {
        Ok(circles.merge(&id, &other, &proof, now())?)
    })
    .await
}

/// Takes a merge back: both stand as before, and no evidence merges them again.
#[utoipa::path(post, path = "/v1/contacts/{id}/part", operation_id = "part_contacts", tag = "contacts",
    params(
        ("id" = String, Path, description = "`con_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = once::KEY),
    ),
    request_body = Part,
    responses(
        (status = 200, description = "The contact as it stands alone", body = ContactDetail),
        (status = 409, description = "They have been parted already", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn part(
    State(desk): State<Desk>,
    Extension(Person(person)): Extension<Person>,
    Path(id): Path<String>,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Error> {
    let id = parse(&id)?;
    let named = Named::read(person.clone(), key, &format!("part {id}"), &body);
    let Part { merge, reason } = body.read()?;
    let merge = MergeId::parse(&merge).ok_or_else(|| Error::invalid("invalid", "`merge` is no id of a merge"))?;
    let undone = Undone {
        at: now(),
        person,
        reason: checked(reason)?,
    };
    change(&desk, named.as_ref(), &id, &[&id], |circles| {
        Ok(circles.part(&merge, undone.clone())?)
    })
    .await
}

/// Puts the contact that speaks for the person into the place of each.
pub async fn resolve<'a>(desk: &Desk, ids: impl Iterator<Item = &'a mut ContactId>) -> Result<(), Error> {
    let ids: Vec<&mut ContactId> = ids.collect();
    let asked: BTreeSet<&ContactId> = ids.iter().map(|id| &**id).collect();
    let heads: HashMap<ContactId, ContactId> = desk.store.heads_of_contacts(asked).await?;
    for id in ids {
        if let Some(head) = heads.get(id) {
            id.clone_from(head);
        }
    }
    Ok(())
}

/// All conversations of the contact's person, in the order of their beginnings.
pub async fn conversations(desk: &Desk, id: &ContactId) -> Result<Vec<ConversationSummary>, Error> {
    let circles = desk.store.circles(&[id]).await?;
    let members = circles.members_of(id);
    let ids: Vec<&ContactId> = members.iter().map(|contact| &contact.id).collect();
    let found = desk.store.conversations_of(&ids).await?;
    Ok(found.into_iter().map(Into::into).collect())
}

fn parse(id: &str) -> Result<ContactId, Error> {
    ContactId::parse(id).ok_or_else(|| Error::not_found("contact"))
}

fn checked(reason: Option<String>) -> Result<Option<String>, Error> {
    match &reason {
        Some(text) if text.chars().count() > 500 => {
            Err(Error::invalid("invalid", "`reason` must have at most 500 characters"))
        }
        _ => Ok(reason),
    }
}

/// Loads, lets the model decide, commits; again, if somebody else was faster.
async fn change(
    desk: &Desk,
    named: Option<&Named>,
    id: &ContactId,
    ids: &[&ContactId],
    decide: impl Fn(&Circles) -> Result<Changes, Error>,
) -> Result<Response, Error> {
    for _ in 0..ATTEMPTS {
        if let Some(answer) = once::answered_before(desk, named).await? {
            return Ok(answer);
        }
        let mut circles = desk.store.circles(ids).await?;
        if !circles.contacts.contains_key(id) {
            return Err(Error::not_found("contact"));
        }
        let changes = decide(&circles)?;
        circles.absorb(&changes);
        let answer = Answer::new(named, &detail(desk, &circles, id).await?)?;
        if let Some(answer) = answer.commit(desk, &changes).await? {
            return Ok(answer);
        }
    }
    Err(Error::busy("others are changing this contact at the same time"))
}

async fn detail(desk: &Desk, circles: &Circles, id: &ContactId) -> Result<ContactDetail, Error> {
    let members = circles.members_of(id);
    let ids: Vec<&ContactId> = members.iter().map(|contact| &contact.id).collect();
    let Some(head) = members.first() else {
        return Err(Error::not_found("contact"));
    };
    let name = members.iter().find_map(|contact| contact.name.clone());
    let owned = desk.store.identities_of(&ids).await?;
    let mut claims = desk.store.claims_of(&ids).await?;
    let is_known = |claim: &Claim| {
        let same = |owned: &Owned| owned.identity.scheme == claim.scheme && owned.identity.address == claim.address;
        owned.iter().any(|owned| owned.identity.verified && same(owned))
    };
    claims.retain(|claim| !is_known(claim));
    let identities = owned.into_iter().map(Into::into);
    let merges = circles.merges.values();
    let merges = merges.filter(|merge| ids.contains(&&merge.from) || ids.contains(&&merge.into));
    let tickets = desk.store.tickets_of(&ids).await?;
    let conversations = desk.store.conversations_of(&ids).await?;
    let mut contact = ContactView::from((*head).clone());
    contact.name = name;
    Ok(ContactDetail {
        contact,
        identities: identities.chain(claims.into_iter().map(Into::into)).collect(),
        merges: merges.cloned().map(Into::into).collect(),
        conversations: conversations.into_iter().map(Into::into).collect(),
        tickets: tickets.into_iter().map(Into::into).collect(),
        contacts: ids.into_iter().cloned().collect(),
    })
}
