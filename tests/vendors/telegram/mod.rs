//! Telegram, as the documentation of its Bot API says it is: the methods that we
//! call, and updates that wait until a webhook has taken them or a poll has asked
//! for later ones.

mod api;
mod form;
mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Listening, Moods, lock};
pub use form::File;
pub use updates::person;

pub const TOKEN: &str = "123456789:AAE-the_token_of_the_stories";
pub const SECRET: &str = "the_secret_of_the_stories-1";
pub const USERNAME: &str = "tributary_stories_bot";

/// What every file is.
pub const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n a picture";

/// Telegram, for one bot.
pub struct Telegram {
    /// How it takes the next messages.
    pub moods: Arc<Moods>,
    state: Arc<State>,
    client: reqwest::Client,
    delivering: JoinHandle<()>,
    _listening: Listening,
}

/// A message of the bot's.
#[derive(Clone, Debug)]
pub struct Sent {
    pub method: String,
    /// As they were sent; of a form, texts.
    pub fields: BTreeMap<String, Value>,
    pub file: Option<File>,
    pub message_id: i64,
}

#[derive(Default)]
struct State {
    updates: Mutex<Updates>,
    /// Something happened to the updates.
    changed: Notify,
    sent: Mutex<Vec<Sent>>,
    /// Buttons that were answered.
    answered: Mutex<Vec<String>>,
    /// Calls that were refused, and why.
    refusals: Mutex<Vec<String>>,
    /// Chats whose people have blocked the bot.
    blocked: Mutex<BTreeSet<i64>>,
}

#[derive(Default)]
struct Updates {
    last_id: i64,
    waiting: BTreeMap<i64, Value>,
    webhook: Option<Webhook>,
    /// Counts polls: a later one ends those before.
    polls: u64,
    last_error: Option<String>,
}

#[derive(Clone)]
struct Webhook {
    url: String,
    secret: String,
}

impl Telegram {
    /// Listens at this port. Updates go nowhere until a webhook is set or somebody
    /// polls.
    pub async fn start(port: u16) -> Result<Self> {
        let (moods, state) = (Arc::new(Moods::default()), Arc::new(State::default()));
        // As a real one, that is not the first number that there is.
        lock(&state.updates).last_id = 871_000_000;
        let client = reqwest::Client::builder().timeout(super::PATIENCE).build()?;
        let routes = api::routes(state.clone(), moods.clone());
        Ok(Self {
            moods,
            delivering: tokio::spawn(updates::deliver(state.clone(), client.clone())),
            state,
            client,
            _listening: Listening::at(port, routes).await?,
        })
    }

    /// The bot's messages, in their order.
    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.state.sent).clone()
    }

    /// Buttons that were answered.
    pub fn answered(&self) -> Vec<String> {
        lock(&self.state.answered).clone()
    }

    /// Why it refused what it refused.
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.state.refusals).clone()
    }

    /// Where updates are pushed.
    pub fn webhook(&self) -> Option<String> {
        lock(&self.state.updates).webhook.as_ref().map(|hook| hook.url.clone())
    }

    /// Updates that nobody has taken yet.
    pub fn waiting(&self) -> usize {
        lock(&self.state.updates).waiting.len()
    }

    /// From now on the bot may not write to this person.
    pub fn block(&self, chat: i64) {
        lock(&self.state.blocked).insert(chat);
    }

    /// The person may be written to again.
    pub fn unblock(&self, chat: i64) {
        lock(&self.state.blocked).remove(&chat);
    }
}

impl Drop for Telegram {
    fn drop(&mut self) {
        self.delivering.abort();
    }
}
