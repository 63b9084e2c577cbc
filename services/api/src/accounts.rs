//! `/v1/accounts`: the mailboxes, bots and numbers, as they are now.

use axum::Json;
use axum::extract::State;
use model::outbound::{Declaration, Join};
use model::time::Moment;
use serde::Serialize;
use store::accounts::Account;
use utoipa::ToSchema;

use crate::Desk;
use crate::error::{Error, Problems};
use crate::page::Page;

/// An account of the settings.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    name: String,
    channel: String,
    /// Where its tickets go, unless a rule says otherwise.
    queue: Option<String>,
    /// Which ticket a known contact's message joins: `open` or `thread`.
    #[schema(value_type = String, example = "open")]
    join: Join,
    declaration: DeclarationView,
    /// When its channel last had contact with the provider.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_seen_at: Option<Moment>,
    /// The worker that holds it, where one must.
    held_by: Option<String>,
    /// What is wrong with it now.
    error: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    error_at: Option<Moment>,
    /// What is still to be fetched, where the channel can tell.
    waiting: i64,
}

/// What its channel can carry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Declaration)]
struct DeclarationView {
    /// Longest text of one message, in characters.
    max_chars: Option<u32>,
    /// Media types of a message's body, the preferred first.
    formats: Vec<String>,
    /// For how long after the contact's last message a reply is allowed.
    reply_window_ms: Option<i64>,
    /// Sending the same message again reaches the contact at most once.
    resend_safe: bool,
    /// Attachments can be carried, up to this many bytes in all.
    max_attachment_bytes: Option<u64>,
    /// `POST /v1/conversations/{id}/links` makes links to it.
    invites: bool,
}

/// All accounts, by name.
#[utoipa::path(get, path = "/v1/accounts", operation_id = "list_accounts", tag = "accounts",
    responses((status = 200, description = "All accounts on one page", body = Page<AccountView>), Problems))]
pub async fn list(State(desk): State<Desk>) -> Result<Json<Page<AccountView>>, Error> {
    let accounts = desk.store.accounts().await?;
    Ok(Json(Page {
        items: accounts.into_iter().map(Into::into).collect(),
        next: None,
    }))
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            name: account.plan.name,
            channel: account.plan.channel,
            queue: account.plan.queue,
            join: account.plan.join,
            declaration: account.declaration.into(),
            last_seen_at: account.last_seen_at,
            held_by: account.held_by,
            error: account.error,
            error_at: account.error_at,
            waiting: account.waiting,
        }
    }
}

impl From<Declaration> for DeclarationView {
    fn from(declaration: Declaration) -> Self {
        Self {
            max_chars: declaration.max_chars,
            formats: declaration.formats,
            reply_window_ms: declaration.reply_window_ms,
            resend_safe: declaration.resend_safe,
            max_attachment_bytes: declaration.max_attachment_bytes,
            invites: declaration.invites,
        }
    }
}
