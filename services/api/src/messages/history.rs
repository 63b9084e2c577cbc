//! `/v1/messages/{id}/history`: what a message said first, and what happened to it.

use axum::Json;
use axum::extract::State;
use model::change::{Change, RecordedChange};
use model::time::Moment;
use serde::Serialize;
use utoipa::ToSchema;

use super::parse;
use crate::Desk;
use crate::error::{Error, Problems};
use crate::extract::Path;

/// What a message said first, and every change of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
pub struct HistoryView {
    /// Its text as it was first written.
    text: String,
    /// Sanitised.
    html: Option<String>,
    /// In the order in which they reached us.
    changes: Vec<ChangeView>,
}

/// One change of a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
struct ChangeView {
    id: String,
    /// The provider's time, never later than `received_at`.
    #[schema(value_type = String, format = DateTime)]
    occurred_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    received_at: Moment,
    /// The provider's own order.
    provider_sequence: Option<i64>,
    /// `type` is `edited`, `deleted`, `reacted`, `called` or `attachments_added`; the other fields are its own.
    #[schema(value_type = Object)]
    change: Change,
}

/// What a message said first, and what happened to it since.
#[utoipa::path(get, path = "/v1/messages/{id}/history", operation_id = "show_message_history", tag = "messages",
    params(("id" = String, Path, description = "`msg_…`")),
    responses((status = 200, description = "The history", body = HistoryView), Problems))]
pub async fn history(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Json<HistoryView>, Error> {
    let found = desk.store.history(&parse(&id)?).await?;
    let (message, changes) = found.ok_or_else(|| Error::not_found("message"))?;
    Ok(Json(HistoryView {
        text: message.text,
        html: message.html,
        changes: changes.into_iter().map(Into::into).collect(),
    }))
}

impl From<RecordedChange> for ChangeView {
    fn from(recorded: RecordedChange) -> Self {
        Self {
            id: recorded.id,
            occurred_at: recorded.occurred_at,
            received_at: recorded.received_at,
            provider_sequence: recorded.provider_sequence,
            change: recorded.change,
        }
    }
}
