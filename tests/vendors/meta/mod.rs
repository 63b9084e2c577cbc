//! Meta, as its documentation says it is: the Graph API that we call, for WhatsApp,
//! Messenger and Instagram, and the webhooks by which it calls us, signed by an
//! implementation of its own.

mod api;
mod checks;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use serde_json::Value;

use super::{Listening, Moods, lock};
pub use api::PICTURE;
pub use webhooks::{
    echo, escaped, event, instagram, messenger, moments_ago, sign, user_id, whatsapp, whatsapp_message, whatsapp_status,
};

pub const APP_SECRET: &str = "the app secret of the stories";
pub const VERIFY_TOKEN: &str = "the verify token of the stories";
pub const ACCESS_TOKEN: &str = "the access token of the stories";
pub const APP_ID: &str = "400000000000004";
pub const VERSION: &str = "v25.0";

/// The business's number at WhatsApp, and the account that has it.
pub const NUMBER_ID: &str = "200000000000002";
pub const BUSINESS_ID: &str = "100000000000001";
/// Its page at Messenger.
pub const PAGE_ID: &str = "500000000000005";
/// Its account at Instagram.
pub const INSTAGRAM_ID: &str = "600000000000006";

/// What a business has at Meta.
pub struct Meta {
    pub moods: Arc<Moods>,
    state: Arc<State>,
    /// Where Tributary is, for webhooks.
    public: String,
    client: reqwest::Client,
    _listening: Listening,
}

/// What Meta knows.
#[derive(Default)]
pub(crate) struct State {
    /// Where this server listens.
    pub base: Mutex<String>,
    /// What was to be sent, with the id that it got.
    pub messages: Mutex<Vec<Value>>,
    /// Uploaded files: type and bytes.
    pub files: Mutex<Vec<(String, Vec<u8>)>>,
    /// When each user wrote last, in milliseconds.
    pub wrote: Mutex<BTreeMap<String, i64>>,
    /// Other requests that it has taken: path and body.
    pub settings: Mutex<Vec<(String, Value)>>,
    /// Requests that were refused, and why.
    pub refusals: Mutex<Vec<String>>,
    /// Users who cannot be reached any more.
    pub gone: Mutex<Vec<String>>,
}

impl Meta {
    /// Listens at this port, and posts webhooks to the gateway at `public`.
    pub async fn start(port: u16, public: &str) -> Result<Self> {
        let (moods, state) = (Arc::new(Moods::default()), Arc::new(State::default()));
        *lock(&state.base) = format!("http://127.0.0.1:{port}");
        let routes = api::routes(state.clone(), moods.clone());
        Ok(Self {
            moods,
            state,
            public: public.to_owned(),
            client: reqwest::Client::builder().timeout(super::PATIENCE).build()?,
            _listening: Listening::at(port, routes).await?,
        })
    }

    /// What it has taken to be sent, in its order.
    pub fn messages(&self) -> Vec<Value> {
        lock(&self.state.messages).clone()
    }

    /// Files that were uploaded.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        lock(&self.state.files).clone()
    }

    /// What was set: path and body.
    pub fn settings(&self) -> Vec<(String, Value)> {
        lock(&self.state.settings).clone()
    }

    /// Why it refused what it refused.
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.state.refusals).clone()
    }

    /// From now on this user cannot be reached.
    pub fn lose(&self, user: &str) {
        lock(&self.state.gone).push(user.to_owned());
    }
}
