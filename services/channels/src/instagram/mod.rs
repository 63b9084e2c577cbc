//! Instagram: messages to a professional account, both ways. `README.md` says how an
//! account is set up.

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
use crate::parts::split_bytes;

const PRODUCT: Product = Product {
    api_url: "https://graph.instagram.com",
    per_second: NonZeroU32::new(10).unwrap(),
};

/// Longest text of one message.
const PART_BYTES: usize = 1_000;

const KIND: Kind = Kind {
    object: "instagram",
    scheme: "instagram",
    split: |text| split_bytes(text, PART_BYTES),
    max_chars: 4_000,
    max_media_bytes: 25_000_000,
    quotes: false,
    has_metadata: false,
};

/// What the app wants to hear of.
const FIELDS: &[&str] = &["messages", "messaging_postbacks", "messaging_seen", "message_reactions"];

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The id of the professional account, as webhooks name it.
    instagram_id: String,
    /// The app has the feature *Human Agent*: people may answer for seven days.
    #[serde(default)]
    human_agent: bool,
}

struct Instagram(Messaging);

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let (meta, settings) = Meta::new::<Settings>(account, surroundings, &PRODUCT)?;
    if !is_id(&settings.instagram_id) {
        return Err("instagram_id: it has digits only".to_owned());
    }
    Ok(Arc::new(Instagram(Messaging {
        meta,
        kind: &KIND,
        account: account.name.clone(),
        id: settings.instagram_id,
        // Whoever's token it is: an account at Instagram, or the page that it belongs to.
        sender: "me".to_owned(),
        app_id: None,
        human_agent: settings.human_agent,
        links: Links::new(surroundings),
    })))
}

#[async_trait]
impl Channel for Instagram {
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
        Some(self.try_account().await)
    }
}

impl Instagram {
    async fn try_account(&self) -> Result<Vec<String>, String> {
        let account = self.0.show("me?fields=user_id,username").await?;
        let name = text(&account, "/username").ok_or("Meta's answer names no account")?;
        let subscribed = self.0.subscribe("me", FIELDS).await?;
        Ok(vec![format!("the account {name} is there"), subscribed])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each payload of `testdata/` and what is made of it. To renew a snapshot, delete
    /// it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        let channel = crate::contract::sample_of("instagram");
        meta::snapshots("src/instagram/testdata", |bytes| {
            channel.parse(&crate::contract::posted(bytes))
        });
    }
}
