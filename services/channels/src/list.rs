//! The list of channels: a new one is one folder and one line here.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::calendar::Calendar;
use model::context::AccountPlan;

use crate::channel::Channel;
use crate::signature::Keys;

/// An account as settings declare it; `rest` is the channel's own part.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    pub name: String,
    pub channel: String,
    pub queue: Option<String>,
    /// `open` or `thread`; the channel's own default without it.
    pub join: Option<model::outbound::Join>,
    pub rest: toml::Table,
}

/// What every channel may need of the installation.
#[derive(Clone)]
pub struct Surroundings {
    pub keys: Keys,
    /// `[public] url`: how vendors see us, without a slash at its end.
    pub public_url: String,
    /// Addresses that an outgoing fetch may reach though they are private.
    pub http: crate::guard::Guard,
    /// When people work, by name.
    pub calendars: Vec<Calendar>,
}

/// An account, built.
#[derive(Clone)]
pub struct Account {
    pub plan: AccountPlan,
    pub channel: Arc<dyn Channel>,
}

/// All accounts, by name.
pub type Accounts = BTreeMap<String, Account>;

type Build = fn(&AccountSettings, &Surroundings) -> Result<Arc<dyn Channel>, String>;

const CHANNELS: &[(&str, Build)] = &[
    ("chat", crate::chat::build),
    ("email", crate::email::build),
    ("instagram", crate::instagram::build),
    ("line", crate::line::build),
    ("messenger", crate::messenger::build),
    ("slack", crate::slack::build),
    ("sms", crate::sms::build),
    ("telegram", crate::telegram::build),
    ("voice", crate::voice::build),
    ("webhook", crate::webhook::build),
    ("whatsapp", crate::whatsapp::build),
];

/// Builds all accounts, or says which setting is wrong.
pub fn build(settings: &[AccountSettings], surroundings: &Surroundings) -> Result<Accounts, String> {
    let mut accounts = Accounts::new();
    for setting in settings {
        let name = &setting.name;
        if !is_name(name) {
            return Err(format!(
                "accounts: {name:?} is no name of an account: use 1 to 40 of a-z, 0-9 and -"
            ));
        }
        let channel = build_one(setting, surroundings).map_err(|error| format!("accounts.{name}: {error}"))?;
        let plan = AccountPlan {
            name: name.clone(),
            channel: setting.channel.clone(),
            queue: setting.queue.clone(),
            join: setting.join.unwrap_or(channel.declaration().join),
            live: channel.declaration().live.is_some(),
        };
        if accounts.insert(name.clone(), Account { plan, channel }).is_some() {
            return Err(format!("accounts.{name}: there are two accounts of this name"));
        }
    }
    Ok(accounts)
}

/// Names of all channels.
pub fn channels() -> Vec<&'static str> {
    CHANNELS.iter().map(|(name, _)| *name).collect()
}

/// The channel's own settings, unknown ones refused: for a channel's `build`.
pub fn settings<T: serde::de::DeserializeOwned>(account: &AccountSettings) -> Result<T, String> {
    account
        .rest
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())
}

/// One of `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name));
    let (distance, name) = near.min()?;
    (distance <= 1 + name.len() / 3).then_some(name)
}

fn build_one(setting: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    match CHANNELS.iter().find(|(name, _)| *name == setting.channel) {
        Some((_, build)) => build(setting, surroundings),
        None => Err(unknown_channel(&setting.channel)),
    }
}

fn unknown_channel(channel: &str) -> String {
    let known = channels();
    let meant = match nearest(channel, &known) {
        Some(name) => format!(", did you mean {name:?}?"),
        None => String::new(),
    };
    format!(
        "there is no channel {channel:?}{meant} (channels: {})",
        known.join(", ")
    )
}

/// Also keeps out `*`, the realm of the whole installation.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_or_none() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, &["email", "webhook"]), expected, "{word}");
        };
        check("emial", Some("email"));
        check("mail", Some("email"));
        check("web-hook", Some("webhook"));
        check("telegram", None);
        check("", None);
    }

    #[test]
    fn names_of_accounts_are_plain() {
        let check = |name: &str, expected: bool| assert_eq!(is_name(name), expected, "{name}");
        check("support", true);
        check("support-2", true);
        check("", false);
        check("*", false);
        check("Support", false);
        check("a b", false);
        check("a.b", false);
        check(&"a".repeat(40), true);
        check(&"a".repeat(41), false);
    }
}
