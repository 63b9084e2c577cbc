//! What channels tell of their accounts: kind, declaration, state, cursor.

use crate::lease::Lease;
use crate::{Error, Store};
use model::context::AccountPlan;
use model::outbound::Declaration;
use model::time::Moment;

/// An account as pages show it.
#[derive(Clone, Debug)]
pub struct Account {
    pub plan: AccountPlan,
    pub declaration: Declaration,
    /// When its channel last had contact with the provider.
    pub last_seen_at: Option<Moment>,
    /// Owner of its lease, if it is leased.
    pub held_by: Option<String>,
    /// What is wrong with it now; `None` if nothing.
    pub error: Option<String>,
    pub error_at: Option<Moment>,
    /// What is still to be fetched, where the channel can tell.
    pub waiting: i64,
}

impl Store {
    /// Writes kind, limits and plan of each account of the settings; accounts no
    /// longer declared are marked as gone and leave the lists.
    pub async fn declare_accounts(&self, _accounts: &[(AccountPlan, Declaration)]) -> Result<(), Error> {
        unimplemented!()
    }

    /// All declared accounts, by name.
    pub async fn accounts(&self) -> Result<Vec<Account>, Error> {
        unimplemented!()
    }

    /// Notes contact (`error` `None`) or trouble with the provider.
    pub async fn account_seen(
        &self,
        _name: &str,
        _error: Option<&str>,
        _waiting: i64,
        _at: Moment,
    ) -> Result<(), Error> {
        unimplemented!()
    }

    /// The account's cursor (JSON of the channel's own).
    pub async fn cursor(&self, _account: &str) -> Result<Option<serde_json::Value>, Error> {
        unimplemented!()
    }

    /// Moves the cursor, if the lease's fence still holds; `false` if it does not.
    pub async fn move_cursor(
        &self,
        _lease: &Lease,
        _account: &str,
        _cursor: &serde_json::Value,
    ) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Which of these external ids are known as stored messages, and how often.
    pub async fn known_external_ids(
        &self,
        _external_ids: &[String],
    ) -> Result<std::collections::HashMap<String, i64>, Error> {
        unimplemented!()
    }
}
