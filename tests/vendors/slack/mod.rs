//! Slack, as its documentation says it is: the Web API that we call, the events by
//! which it calls us, signed by an implementation of its own, and Socket Mode.

mod api;
mod events;
mod socket;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;

use super::{Listening, Moods, lock};
pub use api::PICTURE;
pub use events::{Answer, direct, event, message, sign};

pub const BOT_TOKEN: &str = "xoxb-the-stories";
pub const APP_TOKEN: &str = "xapp-the-stories";
pub const SIGNING_SECRET: &str = "the signing secret of the stories";
pub const APP: &str = "A0STORIES";
pub const BOT_USER: &str = "U0BOT";
pub const TEAM: &str = "T0STORIES";

/// One app in one workspace.
pub struct Slack {
    pub moods: Arc<Moods>,
    state: Arc<State>,
    /// Where Tributary is, for events.
    public: String,
    client: reqwest::Client,
    _listening: Listening,
}

/// A message that we posted, or files that we shared.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    pub channel: String,
    pub thread_ts: Option<String>,
    pub ts: String,
    pub text: String,
    pub metadata: Value,
    /// Names and bytes.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A file's name, and its bytes once they are here.
pub(crate) type Upload = (String, Option<Vec<u8>>);

/// What the workspace holds.
#[derive(Default)]
pub(crate) struct State {
    pub posted: Mutex<Vec<Posted>>,
    /// Requests that were refused, and why.
    pub refusals: Mutex<Vec<String>>,
    /// When each channel got its last message.
    pub last: Mutex<BTreeMap<String, Instant>>,
    /// By id.
    pub uploads: Mutex<BTreeMap<String, Upload>>,
    pub sockets: socket::Sockets,
    /// The bot's token is worth nothing.
    pub is_revoked: AtomicBool,
}

impl Slack {
    /// Listens at this port, and posts events to the gateway at `public`.
    pub async fn start(port: u16, public: &str) -> Result<Self> {
        let (moods, state) = (Arc::new(Moods::default()), Arc::new(State::default()));
        let routes = api::routes(port, state.clone(), moods.clone());
        Ok(Self {
            moods,
            state,
            public: public.to_owned(),
            client: reqwest::Client::builder().timeout(super::PATIENCE).build()?,
            _listening: Listening::at(port, routes).await?,
        })
    }

    /// What it has taken, in order.
    pub fn posted(&self) -> Vec<Posted> {
        lock(&self.state.posted).clone()
    }

    /// The bot's token is worth nothing, or something again.
    pub fn revoke(&self, is_revoked: bool) {
        self.state.is_revoked.store(is_revoked, Ordering::Relaxed);
    }

    /// Why it refused what it refused.
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.state.refusals).clone()
    }
}
