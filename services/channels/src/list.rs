//! The list of channels: a new one is one folder and one line here.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::context::AccountPlan;

use crate::channel::Channel;
use crate::signature::Keys;

/// An account as settings declare it; `rest` is the channel's own part.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    pub name: String,
    pub channel: String,
    pub queue: Option<String>,
    /// `open` or `thread`; the channel's own default without it.
    pub join: Option<model::outbound::Join>,
    pub rest: toml::Table,
}

/// What every channel may need of the installation.
#[derive(Clone)]
pub struct Surroundings {
    pub keys: Keys,
    /// `[public] url`: how vendors see us, without a slash at its end.
    pub public_url: String,
    /// Addresses that an outgoing fetch may reach though they are private.
    pub http: crate::guard::Guard,
}

/// An account, built.
#[derive(Clone)]
pub struct Account {
    pub plan: AccountPlan,
    pub channel: Arc<dyn Channel>,
}

/// All accounts, by name.
pub type Accounts = BTreeMap<String, Account>;

type Build = fn(&AccountSettings, &Surroundings) -> Result<Arc<dyn Channel>, String>;

const CHANNELS: &[(&str, Build)] = &[("email", crate::email::build), ("webhook", crate::webhook::build)];

/// Builds all accounts, or says which setting is wrong.
pub fn build(settings: &[AccountSettings], surroundings: &Surroundings) -> Result<Accounts, String> {
    let _ = (settings, surroundings, CHANNELS);
    unimplemented!()
}
