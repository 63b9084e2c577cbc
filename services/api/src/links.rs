//! `/v1/conversations/{id}/links`: how a contact goes on by another account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::id::ConversationId;
use model::time::Moment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{BodyProblems, Error, Problems};
use crate::extract::{Body, Path};
use crate::{Desk, conversations, now};

/// Makes a link to an account for the contact of a conversation, and says until when it
/// is good; `None` if that account makes none.
pub type Invite = Arc<dyn Fn(&str, &ConversationId, Moment) -> Option<(String, Moment)> + Send + Sync>;

/// Where the contact shall go on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// One that `invites`, see `/v1/accounts`.
    #[schema(example = "bot")]
    account: String,
}

/// A link for one contact.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Link)]
pub struct LinkView {
    #[schema(example = "https://t.me/bikes_bot?start=…")]
    url: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Moment,
}

/// Makes a link by which the contact goes on by another account.
///
/// Whoever opens it and writes there is this conversation's contact from then on, so it is for the contact alone.
/// Nothing is kept of it; a new one may be made any time.
#[utoipa::path(post, path = "/v1/conversations/{id}/links", operation_id = "make_link", tag = "conversations",
    params(("id" = String, Path, description = "`cnv_…`")),
    request_body = Wanted,
    responses((status = 201, description = "The link", body = LinkView), Problems, BodyProblems))]
pub async fn make(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<LinkView>), Error> {
    let Wanted { account } = body.read()?;
    let conversation = conversations::load(&desk, &conversations::parse(&id)?).await?;
    let circles = desk.store.circles(&[&conversation.contact_id]).await?;
    let contact = circles.contacts.get(&conversation.contact_id);
    if !contact.is_some_and(|contact| contact.identity.verified) {
        return Err(Error::invalid(
            "not_proven",
            "nothing proves who the contact of this conversation is: a link would join them with anybody",
        ));
    }
    match (desk.invite)(&account, &conversation.id, now()) {
        Some((url, expires_at)) => Ok((StatusCode::CREATED, Json(LinkView { url, expires_at }))),
        None => Err(Error::invalid(
            "no_links",
            "no links can be made to this account; `/v1/accounts` says to which (`invites`)",
        )),
    }
}
