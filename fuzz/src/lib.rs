//! What the targets share: an account of every channel, and inputs for it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use channels::channel::{Input, Unparsed};
use channels::guard::Guard;
use channels::list::{self, AccountSettings, Accounts, Surroundings};
use channels::signature::Keys;
use model::time::Moment;
use toml::Table;

/// One account of each channel, named after it.
pub static ACCOUNTS: LazyLock<Accounts> = LazyLock::new(|| {
    let declared: BTreeMap<String, Table> = toml::from_str(include_str!("../accounts.toml")).unwrap();
    let settings: Vec<AccountSettings> = declared.into_iter().map(account).collect();
    let named: Vec<&str> = settings.iter().map(|account| account.name.as_str()).collect();
    assert_eq!(named, list::channels(), "accounts.toml lacks a channel");
    let surroundings = Surroundings {
        keys: Keys::new(vec![vec![1; 32]]).unwrap(),
        public_url: "http://localhost".to_owned(),
        http: Guard::new(false).unwrap(),
        calendars: Vec::new(),
    };
    list::build(&settings, &surroundings).unwrap()
});

fn account((name, rest): (String, Table)) -> AccountSettings {
    AccountSettings {
        channel: name.clone(),
        name,
        queue: None,
        join: None,
        rest,
    }
}

/// What stands before the first end of a line, and behind it.
pub fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

/// A POST with this body.
pub fn posted(url: &str, headers: Vec<(String, String)>, body: &[u8]) -> Input {
    Input {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers,
        body: body.to_vec().into(),
        received_at: Moment::from_ms(1_767_225_600_000),
    }
}

/// What a channel makes of a body has a place, and is the same the next time.
pub fn parse(channel: &str, body: &[u8]) {
    let Some(account) = ACCOUNTS.get(channel) else {
        return;
    };
    let content_type = match body.first() {
        Some(b'{' | b'[') => "application/json",
        _ => "application/x-www-form-urlencoded",
    };
    let headers = vec![("content-type".to_owned(), content_type.to_owned())];
    let mut input = posted("/in/a", headers, body);
    match account.channel.parse(&input) {
        Ok(parsed) => {
            for event in &parsed.events {
                // What has no id of its own is parked by the inbox.
                let is_named = !event.external_id.trim().is_empty();
                assert!(!is_named || !event.thread.trim().is_empty(), "no thread");
            }
            input.received_at = input.received_at.plus_ms(60_000);
            let again = account.channel.parse(&input).map(|parsed| parsed.events);
            assert_eq!(again, Ok(parsed.events), "a repeat is another");
        }
        Err(Unparsed::Parked { reason } | Unparsed::Rejected { reason }) => assert!(!reason.is_empty()),
    }
}
