//! The settings of a mail account, checked before a port opens.

use std::net::IpAddr;

use model::time::Moment;
use secrecy::SecretString;
use serde::Deserialize;

use super::{address, tokens};
use crate::list::AccountSettings;

/// The channel's own part of `[[accounts]]`; `README.md` explains each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Ours: what customers write to.
    pub address: String,
    /// What stands before the address in our mails.
    pub display_name: Option<String>,
    pub imap: Imap,
    pub smtp: Smtp,
    /// Certificates in PEM of an authority that is trusted beside the system's.
    pub ca: Option<String>,
    /// Servers whose Authentication-Results are believed.
    #[serde(default)]
    pub trusted_authserv_ids: Vec<String>,
    /// Whether answers are asked for at a signed plus-address.
    #[serde(default)]
    pub plus_address: bool,
    /// Where reading begins at the first connection.
    #[serde(default)]
    pub since: Since,
    /// Behind the `@` of our Message-IDs; the domain of `address` without it.
    pub message_id_domain: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imap {
    pub host: String,
    pub port: Option<u16>,
    #[serde(default)]
    pub tls: Tls,
    /// Allows `tls = "none"` to another host than this one.
    #[serde(default)]
    pub insecure: bool,
    pub user: String,
    pub password: SecretString,
    #[serde(default = "inbox")]
    pub mailbox: String,
    #[serde(default = "yes")]
    pub idle: bool,
    /// Time between two looks where there is no IDLE.
    #[serde(default = "poll_seconds")]
    pub poll_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    pub host: String,
    pub port: Option<u16>,
    #[serde(default)]
    pub tls: Tls,
    /// Allows `tls = "none"` to another host than this one.
    #[serde(default)]
    pub insecure: bool,
    pub user: Option<String>,
    pub password: Option<SecretString>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// From the first byte (RFC 8314).
    #[default]
    Implicit,
    /// Plain at first; what does not become TLS is not used.
    #[serde(rename = "starttls")]
    Upgraded,
    None,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Since {
    /// With the first mail after the first connection.
    #[default]
    Now,
    /// With the oldest mail in the mailbox.
    All,
    /// With the first mail that arrived at this moment or later.
    At(Moment),
}

impl TryFrom<String> for Since {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "now" => Ok(Self::Now),
            "all" => Ok(Self::All),
            _ => Moment::parse(&text)
                .map(Self::At)
                .ok_or_else(|| "since is \"now\", \"all\" or a moment like 2026-01-31T00:00:00Z".to_owned()),
        }
    }
}

impl Settings {
    /// Reads and checks; an error names the setting and never repeats a secret.
    pub fn of(account: &AccountSettings) -> Result<Self, String> {
        let settings: Self = crate::list::settings(account)?;
        if !address::is_sane(&settings.address) {
            return Err(format!("address: {:?} is no e-mail address", settings.address));
        }
        let local = settings.address.split('@').next().unwrap_or_default();
        if settings.plus_address && (local.len() > tokens::longest_local() || local.contains('+')) {
            return Err(format!(
                "plus_address: needs an address without + and at most {} characters before the @",
                tokens::longest_local()
            ));
        }
        if !is_host(settings.domain()) {
            return Err("message_id_domain: is no name of a host".to_owned());
        }
        settings.imap.check().map_err(|error| format!("imap.{error}"))?;
        settings.smtp.check().map_err(|error| format!("smtp.{error}"))?;
        Ok(settings)
    }

    /// Behind the `@` of our Message-IDs.
    pub fn domain(&self) -> &str {
        let of_address = || self.address.rsplit('@').next().unwrap_or_default();
        self.message_id_domain.as_deref().unwrap_or_else(of_address)
    }
}

impl Imap {
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls == Tls::Implicit { 993 } else { 143 })
    }

    fn check(&self) -> Result<(), String> {
        check_host(&self.host, self.tls, self.insecure)?;
        let is_sane = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        if !is_sane(&self.user) || !is_sane(&self.mailbox) {
            return Err("user and mailbox: must not be empty".to_owned());
        }
        if !self.mailbox.is_ascii() {
            return Err("mailbox: must be ASCII, written as the server lists it".to_owned());
        }
        if !(1..=3600).contains(&self.poll_seconds) {
            return Err("poll_seconds: must be 1 to 3600".to_owned());
        }
        Ok(())
    }
}

impl Smtp {
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            Tls::Implicit => 465,
            Tls::Upgraded => 587,
            Tls::None => 25,
        })
    }

    fn check(&self) -> Result<(), String> {
        check_host(&self.host, self.tls, self.insecure)?;
        if self.user.is_some() != self.password.is_some() {
            return Err("user and password: one is given without the other".to_owned());
        }
        Ok(())
    }
}

fn check_host(host: &str, tls: Tls, insecure: bool) -> Result<(), String> {
    if !is_host(host) {
        return Err(format!("host: {host:?} is no name of a host"));
    }
    if tls == Tls::None && !insecure && !is_loopback(host) {
        return Err(
            "tls: \"none\" sends the password in the clear; use \"implicit\" or \"starttls\", or say insecure = true"
                .to_owned(),
        );
    }
    Ok(())
}

fn is_host(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(is_plain)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn inbox() -> String {
    "INBOX".to_owned()
}

fn yes() -> bool {
    true
}

fn poll_seconds() -> u64 {
    60
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Settings, String> {
        Settings::of(&AccountSettings {
            name: "support".to_owned(),
            channel: "email".to_owned(),
            queue: None,
            join: None,
            rest: text.parse().unwrap(),
        })
    }

    const IMAP: &str = "imap = { host = 'imap.example.org', user = 'u', password = 'hush' }\n";
    const SMTP: &str = "smtp = { host = 'smtp.example.org' }\n";

    #[test]
    fn defaults_are_the_safe_ones() {
        let settings = of(&format!("address = 'support@example.org'\n{IMAP}{SMTP}")).unwrap();
        assert_eq!((settings.imap.tls, settings.imap.port()), (Tls::Implicit, 993));
        assert_eq!((settings.smtp.tls, settings.smtp.port()), (Tls::Implicit, 465));
        assert_eq!((settings.imap.mailbox.as_str(), settings.imap.idle), ("INBOX", true));
        assert_eq!((settings.since, settings.plus_address), (Since::Now, false));
        assert_eq!(settings.domain(), "example.org");
        assert!(!format!("{settings:?}").contains("hush"));
    }

    #[test]
    fn wrong_settings_are_named() {
        let check = |text: &str, expected: &str| {
            let error = of(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hush"), "{text}: {error}");
        };
        let address = "address = 'support@example.org'\n";
        check(&format!("{IMAP}{SMTP}"), "address");
        check(&format!("address = 'support'\n{IMAP}{SMTP}"), "no e-mail address");
        check(&format!("{address}{SMTP}"), "imap");
        check(&format!("{address}{IMAP}"), "smtp");
        check(&format!("{address}{IMAP}{SMTP}pollseconds = 1"), "pollseconds");
        check(
            &format!("{address}{SMTP}imap = {{ host = 'a b', user = 'u', password = 'hush' }}"),
            "imap.host",
        );
        check(
            &format!("{address}{SMTP}imap = {{ host = 'h', user = 'u', password = 'hush', tls = 'none' }}"),
            "imap.tls",
        );
        check(
            &format!("{address}{SMTP}imap = {{ host = 'h', user = 'u', password = 'hush', tls = 'ssl' }}"),
            "ssl",
        );
        check(
            &format!("{address}{SMTP}imap = {{ host = 'h', user = 'u', password = 'hush', poll_seconds = 0 }}"),
            "poll_seconds",
        );
        check(
            &format!("{address}{IMAP}smtp = {{ host = 'h', user = 'u' }}"),
            "smtp.user",
        );
        check(
            &format!("{address}{IMAP}smtp = {{ host = 'h', tls = 'none' }}"),
            "smtp.tls",
        );
        check(&format!("{address}{IMAP}{SMTP}since = 'yesterday'"), "since");
        check(
            &format!("{address}{IMAP}{SMTP}message_id_domain = 'a b'"),
            "message_id_domain",
        );
        check(
            &format!("address = 'much-too-long-for-a-tag@example.org'\nplus_address = true\n{IMAP}{SMTP}"),
            "plus_address",
        );
    }

    #[test]
    fn plain_connections_stay_on_this_machine_unless_asked_for() {
        let check = |host: &str, more: &str, expected: bool| {
            let imap = format!("imap = {{ host = '{host}', user = 'u', password = 'hush', tls = 'none'{more} }}\n");
            assert_eq!(
                of(&format!("address = 'a@b.c'\n{imap}{SMTP}")).is_ok(),
                expected,
                "{host}"
            );
        };
        check("127.0.0.1", "", true);
        check("::1", "", true);
        check("localhost", "", true);
        check("10.0.0.1", "", false);
        check("localhost.example.org", "", false);
        check("10.0.0.1", ", insecure = true", true);
    }

    #[test]
    fn reading_begins_where_it_is_told() {
        let check = |text: &str, expected: Since| {
            let settings = of(&format!("address = 'a@b.c'\nsince = '{text}'\n{IMAP}{SMTP}")).unwrap();
            assert_eq!(settings.since, expected);
        };
        check("now", Since::Now);
        check("all", Since::All);
        check("1970-01-01T00:00:01Z", Since::At(Moment::from_ms(1000)));
    }
}
