//! The public routes: `POST /in/{account}`.

use crate::inbox::Inbox;
use crate::list::Accounts;

/// Routes of the public listener.
pub fn routes(_accounts: Accounts, _inbox: Inbox) -> axum::Router {
    unimplemented!()
}
