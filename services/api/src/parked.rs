//! `/v1/parked`: inputs that wait for a person. They are replayed by the command
//! `tributary parked replay`, which can parse them; the API cannot.

use axum::Json;
use axum::extract::State;
use data_encoding::BASE64;
use model::time::Moment;
use serde::Serialize;
use store::parked::ParkedSummary;
use utoipa::ToSchema;

use crate::Desk;
use crate::error::{Error, Problems};
use crate::extract::{Path, Query};
use crate::messages;
use crate::page::{self, Page, Paging};

/// A parked input as lists show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Parked)]
pub struct ParkedView {
    id: String,
    account: String,
    channel: String,
    /// It had no valid signature.
    quarantined: bool,
    reason: String,
    size_bytes: i64,
    #[schema(value_type = String, format = DateTime)]
    received_at: Moment,
    /// Set when it was replayed.
    #[schema(value_type = Option<String>, format = DateTime)]
    replayed_at: Option<Moment>,
}

/// A parked input with its bytes.
#[derive(Debug, Serialize, ToSchema)]
pub struct ParkedDetail {
    id: String,
    account: String,
    channel: String,
    /// It had no valid signature.
    quarantined: bool,
    reason: String,
    #[schema(value_type = String, format = DateTime)]
    received_at: Moment,
    #[schema(value_type = Option<String>, format = DateTime)]
    replayed_at: Option<Moment>,
    raw: RawView,
}

/// Input as it came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Raw)]
struct RawView {
    /// HTTP method; empty for what was not pushed to us.
    method: String,
    url: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// Base64; null if the bytes are gone.
    #[schema(content_encoding = "base64")]
    content: Option<String>,
}

/// Parked and quarantined inputs, the latest first.
#[utoipa::path(get, path = "/v1/parked", operation_id = "list_parked", tag = "parked", params(Paging),
    responses((status = 200, description = "A page of parked inputs", body = Page<ParkedView>), Problems))]
pub async fn list(State(desk): State<Desk>, Query(paging): Query<Paging>) -> Result<Json<Page<ParkedView>>, Error> {
    let limit = page::limit(paging.limit)?;
    let before = page::position(paging.after.as_deref(), |text| page::moment_and_id(text, read_id))?;
    let inputs = desk.store.list_parked(before, limit + 1).await?;
    let page = page::page(inputs, limit, |input| {
        format!("{}:{}", input.received_at.as_ms(), input.id)
    });
    Ok(Json(page.map(Into::into)))
}

/// One parked input with its bytes.
#[utoipa::path(get, path = "/v1/parked/{id}", operation_id = "show_parked", tag = "parked",
    params(("id" = String, Path, description = "`evt_…` or `msg_…`")),
    responses((status = 200, description = "The input", body = ParkedDetail), Problems))]
pub async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Json<ParkedDetail>, Error> {
    let found = if is_id(&id) {
        desk.store.parked_input(&id).await?
    } else {
        None
    };
    let (input, replayed_at) = found.ok_or_else(|| Error::not_found("parked input"))?;
    let (method, url, headers) = (
        input.raw.method.clone(),
        input.raw.url.clone(),
        input.raw.headers.clone(),
    );
    let content = messages::content(&desk, input.raw).await?;
    Ok(Json(ParkedDetail {
        id: input.id,
        account: input.account,
        channel: input.channel,
        quarantined: input.quarantined,
        reason: input.reason,
        received_at: input.received_at,
        replayed_at,
        raw: RawView {
            method,
            url,
            headers,
            content: content.map(|bytes| BASE64.encode(&bytes)),
        },
    }))
}

fn read_id(text: &str) -> Option<String> {
    is_id(text).then(|| text.to_owned())
}

fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl From<ParkedSummary> for ParkedView {
    fn from(input: ParkedSummary) -> Self {
        Self {
            id: input.id,
            account: input.account,
            channel: input.channel,
            quarantined: input.quarantined,
            reason: input.reason,
            size_bytes: input.size_bytes,
            received_at: input.received_at,
            replayed_at: input.replayed_at,
        }
    }
}
