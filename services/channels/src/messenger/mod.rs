//! Messenger: what people write to a page, both ways. `README.md` says how an account
//! is set up.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::outbound::{Declaration, Outbound};
use serde::Deserialize;

use crate::channel::{Answer, BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::links::Links;
use crate::list::{AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use crate::meta::messaging::{Kind, Messaging};
use crate::meta::{self, Meta, Product, is_id, text};
use crate::parts::split;

const PRODUCT: Product = Product {
    api_url: "https://graph.facebook.com",
    per_second: NonZeroU32::new(40).unwrap(),
};

/// Longest text of one message.
const PART_UNITS: usize = 2_000;

const KIND: Kind = Kind {
    object: "page",
    scheme: "messenger",
    split: |text| split(text, PART_UNITS),
    max_chars: 8_000,
    max_media_bytes: 25_000_000,
    quotes: true,
    has_metadata: true,
};

/// What the app wants to hear of.
const FIELDS: &[&str] = &[
    "messages",
    "message_echoes",
    "message_edits",
    "message_deliveries",
    "message_reads",
    "message_reactions",
    "messaging_postbacks",
];

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    page_id: String,
    /// Our app: what it has sent comes back, and is not taken for somebody else's.
    app_id: String,
    /// The app has the feature *Human Agent*: people may answer for seven days.
    #[serde(default)]
    human_agent: bool,
}

struct Messenger(Messaging);

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let (meta, settings) = Meta::new::<Settings>(account, surroundings, &PRODUCT)?;
    for (name, id) in [("page_id", &settings.page_id), ("app_id", &settings.app_id)] {
        if !is_id(id) {
            return Err(format!("{name}: it has digits only"));
        }
    }
    Ok(Arc::new(Messenger(Messaging {
        meta,
        kind: &KIND,
        account: account.name.clone(),
        sender: settings.page_id.clone(),
        id: settings.page_id,
        app_id: Some(settings.app_id),
        human_agent: settings.human_agent,
        links: Links::new(surroundings),
    })))
}

#[async_trait]
impl Channel for Messenger {
    fn declaration(&self) -> Declaration {
        self.0.declaration()
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        self.0.meta.verifier.verify(input)
    }

    fn handshake(&self, input: &Input) -> Option<Answer> {
        Some(self.0.meta.handshake.answer(input))
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        meta::KEPT_HEADERS
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        self.0.parse(input)
    }

    async fn send(&self, outbound: &Outbound, _files: &[Vec<u8>]) -> Sent {
        self.0.send(outbound).await
    }

    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        Ok(self.0.media(source))
    }

    fn send_deadline(&self) -> Duration {
        self.0.send_deadline()
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        Some(self.try_page().await)
    }
}

impl Messenger {
    async fn try_page(&self) -> Result<Vec<String>, String> {
        let page = self.0.show(&format!("{}?fields=name", self.0.id)).await?;
        let name = text(&page, "/name").ok_or("Meta's answer names no page")?;
        let subscribed = self.0.subscribe(&self.0.id, FIELDS).await?;
        Ok(vec![format!("the page {name} is there"), subscribed])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each payload of `testdata/` and what is made of it. To renew a snapshot, delete
    /// it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        let channel = crate::contract::sample_of("messenger");
        meta::snapshots("src/messenger/testdata", |bytes| {
            channel.parse(&crate::contract::posted(bytes))
        });
    }

    #[test]
    fn every_event_of_a_batch_comes_out_of_its_own_piece_again() {
        let channel = crate::contract::sample_of("messenger");
        let again = |bytes: &[u8]| channel.parse(&crate::contract::posted(bytes)).unwrap().events;
        for payload in [
            include_bytes!("testdata/messages.json").as_slice(),
            include_bytes!("testdata/changes.json"),
            include_bytes!("testdata/others.json"),
        ] {
            for mut event in again(payload) {
                let raw = event.raw.take().unwrap();
                assert_eq!(again(&raw), [event]);
            }
        }
    }
}
