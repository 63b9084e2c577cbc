//! LINE, as the documentation of its Messaging API says it is: the requests that we
//! make, and the webhooks by which it tells us, signed by an implementation of its
//! own.

mod api;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use serde_json::Value;

use super::{Listening, Moods, lock};
pub use webhooks::{message_id, sign, user};

pub const SECRET: &str = "the channel secret of the stories";
pub const TOKEN: &str = "the-access-token-of-the-stories";
/// The id of the account's bot.
pub const BOT: &str = "U0000000000000000000000000000b0b0";

/// What every picture and film is.
pub const PICTURE: &[u8] = b"\xff\xd8\xff\xe0 a picture";

/// One channel at LINE.
pub struct Line {
    /// How it takes the next messages.
    pub moods: Arc<Moods>,
    state: Arc<State>,
    client: reqwest::Client,
    _listening: Listening,
}

/// A request that sent something.
#[derive(Clone, Debug)]
pub struct Sent {
    /// `reply` or `push`.
    pub how: &'static str,
    /// To whom; the token of a reply.
    pub to: String,
    pub messages: Vec<Value>,
    /// The ids that it gave them.
    pub ids: Vec<String>,
}

#[derive(Default)]
struct State {
    sent: Mutex<Vec<Sent>>,
    /// Tokens that are good still.
    reply_tokens: Mutex<BTreeSet<String>>,
    /// Keys of pushes, and what they sent.
    retry_keys: Mutex<BTreeMap<String, Vec<String>>>,
    endpoint: Mutex<Option<String>>,
    /// How often the next film is not ready yet.
    not_ready: Mutex<u32>,
    /// Requests that were refused, and why.
    refusals: Mutex<Vec<String>>,
}

impl Line {
    /// Listens at this port.
    pub async fn start(port: u16) -> Result<Self> {
        let (moods, state) = (Arc::new(Moods::default()), Arc::new(State::default()));
        let client = reqwest::Client::builder().timeout(super::PATIENCE).build()?;
        let routes = api::routes(state.clone(), moods.clone(), client.clone());
        Ok(Self {
            moods,
            state,
            client,
            _listening: Listening::at(port, routes).await?,
        })
    }

    /// What it has taken, in order.
    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.state.sent).clone()
    }

    /// Where webhooks go.
    pub fn endpoint(&self) -> Option<String> {
        lock(&self.state.endpoint).clone()
    }

    /// Why it refused what it refused.
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.state.refusals).clone()
    }

    /// No reply token that was given so far is good any more.
    pub fn expire_tokens(&self) {
        lock(&self.state.reply_tokens).clear();
    }

    /// So often the next film is not ready yet.
    pub fn takes_its_time(&self, times: u32) {
        *lock(&self.state.not_ready) = times;
    }
}
