//! What a channel is: the one trait of this workspace.
//!
//! A channel's value is one *account*: a mailbox, a bot, a number, with its
//! settings. Input that is pushed to us goes through `verify` and `parse`; input
//! that we fetch is fetched by `pull` and goes through the same `parse`. What a
//! channel cannot do keeps its default.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use model::event::{Raw, RawContent};
use model::id::ConversationId;
use model::inbound::Inbound;
use model::outbound::{Declaration, Outbound};
use model::time::Moment;

use crate::live::Live;
use crate::media::{Fetch, Unfetched};
use crate::pull::Source;

/// One account of a channel.
#[async_trait]
pub trait Channel: Send + Sync {
    /// What others must know of it.
    fn declaration(&self) -> Declaration;

    /// Checks the signature on the raw bytes, in constant time. Tolerance is
    /// measured against `input.received_at`, so that a replay verifies too.
    /// Never asked about input that the channel fetched itself.
    fn verify(&self, input: &Input) -> Result<(), BadSignature>;

    /// Answers a vendor who asks by GET whether the address is ours (`GET
    /// /in/{account}`). `None`: this channel's vendor does not (405).
    fn handshake(&self, _input: &Input) -> Option<Answer> {
        None
    }

    /// Bytes become events: pure, bounded in size, depth and time.
    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed>;

    /// Headers that signature and parser need, in lower case: only these are kept.
    fn kept_headers(&self) -> &'static [&'static str] {
        &["content-type", "webhook-id", "webhook-timestamp", "webhook-signature"]
    }

    /// Those of them that are a secret themselves and not made by one: they are not
    /// kept once they have proven their input.
    fn secret_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Routes of its own on the public listener, for what is more than one push:
    /// sockets, uploads. A channel that has some is live: nothing of it is taken
    /// from the door of webhooks.
    fn routes(self: Arc<Self>, _live: &Live) -> Option<Router> {
        None
    }

    /// Whether it has a source to be read under a lease: then `pull` is called,
    /// and nothing is taken from the public door.
    fn pulls(&self) -> bool {
        false
    }

    /// Reads the source until something breaks or `source.stop` says stop;
    /// called again, with back-off, while the lease is held.
    async fn pull(&self, _source: &Source) -> Result<(), PullError> {
        Ok(())
    }

    /// Hands one message to the provider. `files` are the bytes of
    /// `outbound.attachments`, in their order. The caller bounds the time by
    /// `send_deadline`.
    async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent;

    /// How the file at an attachment's `source` (a URL, a vendor's id: as `parse` put
    /// it there) is fetched now. Asked anew for each attempt, for such addresses
    /// expire. Without a word of its own a channel takes it for a public URL.
    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        Ok(Fetch::of(source))
    }

    /// The way back into a live thread of this account for whoever has left it, to
    /// stand in a message of ours that goes to them elsewhere. `None`: there is none,
    /// or not for the reader of this message.
    fn way_back(&self, _thread: &str, _elsewhere: &Outbound) -> Option<WayBack> {
        None
    }

    /// A link by which the contact of this conversation, of whichever account, can go
    /// on here: whoever opens it is that contact ([`model::evidence::Opened`]). `None`:
    /// this account makes none.
    fn invitation(&self, _conversation: &ConversationId, _now: Moment) -> Option<Invitation> {
        None
    }

    /// Asks the provider whether the account works, and tells it our address where
    /// it has an API for that; else changes nothing there. What it says, a line
    /// each, or what is wrong. `None`: there is nothing to ask.
    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        None
    }

    /// Asks the provider whether the account works, and changes nothing there: nobody
    /// has asked for that. `false`: it does not, or cannot be asked.
    async fn works(&self) -> bool {
        false
    }

    /// After so long the outcome of a `send` counts as unknown.
    fn send_deadline(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Input as it arrived.
#[derive(Clone, Debug)]
pub struct Input {
    /// HTTP method; empty for what was fetched.
    pub method: String,
    /// Path and query, or a URL of what was fetched.
    pub url: String,
    /// Names in lower case; for what is kept, only those that matter.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// When it reached us (for mail: INTERNALDATE).
    pub received_at: Moment,
}

/// What was made of an input: one POST may hold a thousand events.
#[derive(Debug)]
pub struct Parsed {
    pub events: Vec<Inbound>,
    /// Sent only after all events are durable (C1).
    pub answer: Answer,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

/// How somebody gets back to where he has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// What stands before the link, in one line.
    pub words: String,
    pub url: String,
}

/// How a contact gets to another account of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    pub url: String,
    /// The last moment at which it is good.
    pub until: Moment,
}

/// Why an input is no events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// Its sender is told (400) and can mend and send it again; not kept.
    Rejected { reason: String },
    /// Its sender cannot know; kept for a person (C6).
    Parked { reason: String },
}

/// The signature is missing, wrong or out of its time; and which of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSignature {
    pub reason: &'static str,
}

/// Why a pull ended. All are tried again with back-off; the text is shown with
/// the account, so it holds no secret and no address of a customer.
#[derive(Debug)]
pub struct PullError {
    pub reason: String,
}

/// What became of a `send`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The provider took it and calls it by these ids.
    Accepted { external_ids: Vec<String> },
    /// It will never work: says why.
    Refused { error: String },
    /// Not now; the provider may have said when.
    Later { after: Option<Duration>, error: String },
    /// Nothing leaves by this account until a person mends it: a wrong token, a
    /// blocked account. Shown with the account; the message waits.
    Broken { error: String },
    /// It may or may not have been taken.
    Unknown { error: String },
}

impl Input {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// As it travels with an event.
    pub fn into_raw(self) -> Raw {
        Raw {
            content: RawContent::Inline(self.body.into()),
            method: self.method,
            url: self.url,
            headers: self.headers,
        }
    }
}
