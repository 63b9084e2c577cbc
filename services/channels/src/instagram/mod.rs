//! Instagram: messages to a professional account, both ways. `README.md` says how an
//! account is set up.

use std::num::NonZeroU32;
use std::sync::Arc;

use serde::Deserialize;

use crate::channel::Channel;
use crate::links::Links;
use crate::list::{AccountSettings, Surroundings};
use crate::meta::messaging::{Kind, Messaging};
use crate::meta::{Meta, Product, is_id};
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
    itself: ("account", "user_id,username", "/username"),
    subscribed_fields: &["messages", "messaging_postbacks", "messaging_seen", "message_reactions"],
};

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

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let (meta, settings) = Meta::new::<Settings>(account, surroundings, &PRODUCT)?;
    if !is_id(&settings.instagram_id) {
        return Err("instagram_id: it has digits only".to_owned());
    }
    Ok(Arc::new(Messaging {
        meta,
        kind: &KIND,
        account: account.name.clone(),
        id: settings.instagram_id,
        // Whoever's token it is: an account at Instagram, or the page that it belongs to.
        sender: "me".to_owned(),
        app_id: None,
        human_agent: settings.human_agent,
        links: Links::new(surroundings),
    }))
}

#[cfg(test)]
mod tests {
    /// Each payload of `testdata/` and what is made of it. To renew a snapshot, delete
    /// it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        let channel = crate::contract::sample_of("instagram");
        crate::meta::snapshots("src/instagram/testdata", |bytes| {
            channel.parse(&crate::contract::posted(bytes))
        });
    }
}
