//! Messenger: what people write to a page, both ways. `README.md` says how an account
//! is set up.

use std::num::NonZeroU32;
use std::sync::Arc;

use serde::Deserialize;

use crate::channel::Channel;
use crate::links::Links;
use crate::list::{AccountSettings, Surroundings};
use crate::meta::messaging::{Kind, Messaging};
use crate::meta::{Meta, Product, is_id};
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
    itself: ("page", "name", "/name"),
    subscribed_fields: &[
        "messages",
        "message_echoes",
        "message_edits",
        "message_deliveries",
        "message_reads",
        "message_reactions",
        "messaging_postbacks",
    ],
};

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

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let (meta, settings) = Meta::new::<Settings>(account, surroundings, &PRODUCT)?;
    for (name, id) in [("page_id", &settings.page_id), ("app_id", &settings.app_id)] {
        if !is_id(id) {
            return Err(format!("{name}: it has digits only"));
        }
    }
    Ok(Arc::new(Messaging {
        meta,
        kind: &KIND,
        account: account.name.clone(),
        sender: settings.page_id.clone(),
        id: settings.page_id,
        app_id: Some(settings.app_id),
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
        let channel = crate::contract::sample_of("messenger");
        crate::meta::snapshots("src/messenger/testdata", |bytes| {
            channel.parse(&crate::contract::posted(bytes))
        });
    }

    #[test]
    fn a_thousand_things_of_one_post_are_a_thousand_events() {
        let channel = crate::contract::sample_of("messenger");
        let event = |n: usize| {
            serde_json::json!({ "sender": { "id": format!("8{n:015}") }, "recipient": { "id": "500000000000005" },
                "timestamp": 1_767_225_600_000_i64, "message": { "mid": format!("m_{n}"), "text": "x" } })
        };
        let events: Vec<_> = (0..1_000).map(event).collect();
        let posted = serde_json::json!({ "object": "page", "entry": [
            { "id": "500000000000005", "time": 1, "messaging": events }] });
        let parsed = channel.parse(&crate::contract::posted(posted.to_string().as_bytes()));
        let events = parsed.unwrap().events;
        assert_eq!(events.len(), 1_000);
        let sizes = events.iter().map(|event| event.raw.as_ref().unwrap().len());
        assert!(sizes.max().unwrap() < 400, "each keeps its own piece alone");
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
