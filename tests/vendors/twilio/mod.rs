//! Twilio, as its documentation says it is: the REST API that we call, and the
//! webhooks by which it calls us, signed by an implementation of its own.

mod api;
mod webhooks;

use std::sync::{Arc, Mutex};

use anyhow::Result;
use serde_json::Value;

use super::{Listening, Moods, lock};
pub use api::{PICTURE, RECORDING};
pub use webhooks::{Form, form_of, sign};

pub const ACCOUNT_SID: &str = "AC00000000000000000000000000000001";
pub const TOKEN: &str = "the auth token of the stories";
pub const OUR_NUMBER: &str = "+15550001111";
pub const PHONE_NUMBER_SID: &str = "PN00000000000000000000000000000001";

/// One account at Twilio.
pub struct Twilio {
    pub moods: Arc<Moods>,
    state: Arc<State>,
    /// Where Tributary is, for webhooks.
    public: String,
    client: reqwest::Client,
    _listening: Listening,
}

/// What the account holds.
#[derive(Default)]
pub(crate) struct State {
    pub messages: Mutex<Vec<Form>>,
    pub calls: Mutex<Vec<Form>>,
    pub number: Mutex<Form>,
    /// Requests that were refused, and why.
    pub refusals: Mutex<Vec<String>>,
    /// Numbers that have opted out.
    pub opted_out: Mutex<Vec<String>>,
}

impl Twilio {
    /// Listens at this port, and posts webhooks to the gateway at `public`.
    pub async fn start(port: u16, public: &str) -> Result<Self> {
        let (moods, state) = (Arc::new(Moods::default()), Arc::new(State::default()));
        let routes = api::routes(state.clone(), moods.clone());
        Ok(Self {
            moods,
            state,
            public: public.to_owned(),
            client: reqwest::Client::builder().timeout(super::PATIENCE).build()?,
            _listening: Listening::at(port, routes).await?,
        })
    }

    /// Messages that it has taken, in their order.
    pub fn messages(&self) -> Vec<Form> {
        lock(&self.state.messages).clone()
    }

    /// Calls that it has placed.
    pub fn calls(&self) -> Vec<Form> {
        lock(&self.state.calls).clone()
    }

    /// What is set for the account's number.
    pub fn number(&self) -> Form {
        lock(&self.state.number).clone()
    }

    /// Why it refused what it refused.
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.state.refusals).clone()
    }
}

/// An error as the API words it.
fn refusal(status: u16, code: u32, message: &str) -> Value {
    serde_json::json!({
        "code": code,
        "message": message,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        "status": status,
    })
}
