//! Checks the settings as a whole, before a port opens or a file is created: all
//! problems are found, not only the first.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use channels::guard::Guard;
use channels::list::{Account, Accounts, Surroundings};
use channels::signature::Keys;
use model::outbound::Declaration;
use model::rule::{Known, RuleSet};
use store::book::Declared;
use toml::Value;

use super::{Invalid, Settings, explain};

/// Settings that hold together, and the accounts that they make.
pub struct Checked {
    pub settings: Settings,
    pub accounts: Accounts,
    pub keys: Keys,
}

/// Checks everything and builds the accounts.
pub fn check(settings: Settings, keys: Keys) -> Result<Checked, Invalid> {
    let mut problems = Vec::new();
    listeners(&settings, &mut problems);
    urls(&settings, &mut problems);
    kafka(&settings, &mut problems);
    numbers(&settings, &mut problems);
    names(&settings, &mut problems);
    let policies = policies(&settings, &mut problems);
    let queues = queues(&settings, &policies, &mut problems);
    rules(&settings, &queues, &policies, &mut problems);
    let accounts = accounts(&settings, keys.clone(), &queues, &mut problems);
    mail_accounts(&accounts, &mut problems);
    if problems.is_empty() {
        Ok(Checked {
            settings,
            accounts,
            keys,
        })
    } else {
        Err(Invalid(problems))
    }
}

impl Checked {
    /// What is declared to the store for deciding.
    pub fn declared(&self) -> Declared {
        let settings = &self.settings;
        Declared {
            queues: settings.queues.clone(),
            calendars: settings.calendars.clone(),
            policies: settings.policies.clone(),
            rules: settings.rules.clone(),
            employee_domains: settings
                .employee_domains
                .iter()
                .map(|domain| domain.trim().to_lowercase())
                .collect(),
        }
    }

    /// What is declared to the store of the accounts.
    pub fn declarations(&self) -> Vec<(model::context::AccountPlan, Declaration)> {
        self.accounts
            .values()
            .map(|account| (account.plan.clone(), account.channel.declaration()))
            .collect()
    }

    /// The desk's people.
    pub fn people(&self) -> Vec<String> {
        self.settings.people.iter().map(|person| person.name.clone()).collect()
    }
}

fn listeners(settings: &Settings, problems: &mut Vec<String>) {
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    for (name, text) in [
        ("public", &settings.public.listen),
        ("desk", &settings.desk.listen),
        ("ops", &settings.ops.listen),
    ] {
        let Ok(address) = text.parse::<SocketAddr>() else {
            problems.push(format!(
                "{name}.listen: {text:?} is no address; write IP:PORT, such as 127.0.0.1:8080 or 0.0.0.0:8080"
            ));
            continue;
        };
        match taken.iter().find(|(_, other)| *other == address && address.port() != 0) {
            Some((other, _)) => problems.push(format!("{name}.listen: {address} is {other}.listen already")),
            None => taken.push((name, address)),
        }
    }
}

fn urls(settings: &Settings, problems: &mut Vec<String>) {
    let public = settings.public_url();
    let is_http = reqwest::Url::parse(&public)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none());
    if !is_http && settings.public.url.is_some() {
        problems.push(format!(
            "public.url: {public:?} is no address of a site, such as https://desk.example.com"
        ));
    }
    // Never shown: a database's URL may hold its password.
    starts(
        &settings.store_url(),
        &["sqlite:", "postgres://", "postgresql://"],
        "store.url",
        problems,
    );
    starts(&settings.bus_url(), &["local:", "kafka:"], "bus.url", problems);
    starts(&settings.blobs_url(), &["file:", "s3:"], "blobs.url", problems);
    if let Some(brokers) = settings.bus_url().strip_prefix("kafka:") {
        for broker in brokers.split(',').filter(|broker| !is_host_and_port(broker)) {
            problems.push(format!(
                "bus.url: {broker:?} is no broker; write kafka:HOST:PORT,HOST:PORT"
            ));
        }
    }
}

/// What librdkafka would say in its own words, later.
fn kafka(settings: &Settings, problems: &mut Vec<String>) {
    const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
    const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    let before = problems.len();
    let kafka = settings.kafka_settings();
    let protocol = kafka.security_protocol.as_str();
    one_of(protocol, &PROTOCOLS, "bus.kafka.security_protocol", problems);
    if let Some(mechanism) = &kafka.sasl_mechanism {
        one_of(mechanism, &MECHANISMS, "bus.kafka.sasl_mechanism", problems);
    }
    let (has_sasl, has_tls) = (protocol.starts_with("sasl_"), protocol.ends_with("ssl"));
    for (name, is_set, is_used, is_needed) in [
        ("sasl_mechanism", kafka.sasl_mechanism.is_some(), has_sasl, has_sasl),
        ("username", kafka.username.is_some(), has_sasl, has_sasl),
        ("password", kafka.password.is_some(), has_sasl, has_sasl),
        ("ca", kafka.ca.is_some(), has_tls, false),
        ("certificate", kafka.certificate.is_some(), has_tls, kafka.key.is_some()),
        ("key", kafka.key.is_some(), has_tls, kafka.certificate.is_some()),
    ] {
        if is_set && !is_used {
            problems.push(format!(
                "bus.kafka.{name}: is of no use with security_protocol {protocol:?}"
            ));
        } else if is_needed && !is_set {
            problems.push(format!("bus.kafka.{name}: missing"));
        }
    }
    if protocol != "plaintext" && !settings.has_kafka() {
        problems.push("bus.kafka.security_protocol: is of no use, because bus.url names no Kafka".to_owned());
    }
    if problems.len() == before
        && let Err(error) = kafka.check()
    {
        problems.push(format!("bus.kafka: {error}"));
    }
}

fn one_of(value: &str, allowed: &[&str], key: &str, problems: &mut Vec<String>) {
    if !allowed.contains(&value) {
        problems.push(format!("{key}: {value:?} is none of {}", allowed.join(", ")));
    }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn starts(url: &str, allowed: &[&str], key: &str, problems: &mut Vec<String>) {
    if !allowed
        .iter()
        .any(|scheme| url.len() > scheme.len() && url.starts_with(scheme))
    {
        problems.push(format!("{key}: must begin with {}", allowed.join(" or ")));
    }
}

fn numbers(settings: &Settings, problems: &mut Vec<String>) {
    let partitions = u64::try_from(settings.bus.partitions).unwrap_or(0);
    within(partitions, 1..=1_000, "bus.partitions", problems);
    within(
        settings.leases.period_seconds,
        1..=3_600,
        "leases.period_seconds",
        problems,
    );
    within(settings.router.readers as u64, 1..=64, "router.readers", problems);
    let files = &settings.files;
    within(
        files.max_bytes,
        1..=bus::Blobs::MAX_BYTES as u64,
        "files.max_bytes",
        problems,
    );
    within(
        files.max_message_bytes,
        files.max_bytes..=1 << 40,
        "files.max_message_bytes",
        problems,
    );
    within(files.fetch_seconds, 1..=3_600, "files.fetch_seconds", problems);
    if settings.spool.max_bytes != 0 {
        within(settings.spool.max_bytes, 1 << 20..=1 << 50, "spool.max_bytes", problems);
    }
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    one_of(&settings.log.level, &LEVELS, "log.level", problems);
}

fn within(value: u64, range: std::ops::RangeInclusive<u64>, key: &str, problems: &mut Vec<String>) {
    if !range.contains(&value) {
        problems.push(format!(
            "{key}: {value} is not between {} and {}",
            range.start(),
            range.end()
        ));
    }
}

/// Names must be there, and once.
fn names(settings: &Settings, problems: &mut Vec<String>) {
    let accounts: Vec<&str> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
    unique("accounts", accounts, problems);
    unique(
        "queues",
        settings.queues.iter().map(|queue| queue.name.as_str()).collect(),
        problems,
    );
    unique(
        "calendars",
        settings
            .calendars
            .iter()
            .map(|calendar| calendar.name.as_str())
            .collect(),
        problems,
    );
    unique(
        "policies",
        settings.policies.iter().map(|policy| policy.name.as_str()).collect(),
        problems,
    );
    unique(
        "people",
        settings.people.iter().map(|person| person.name.as_str()).collect(),
        problems,
    );
    if settings.queues.is_empty() {
        problems.push("queues: there must be at least one".to_owned());
    }
}

fn unique(list: &str, names: Vec<&str>, problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.into_iter().enumerate() {
        if name.trim().is_empty() {
            problems.push(format!("{list}[{index}].name: is empty"));
        } else if !seen.insert(name) {
            problems.push(format!("{list}.{name}: there are two of this name"));
        }
    }
}

/// Checks calendars and policies; the names of the policies.
fn policies(settings: &Settings, problems: &mut Vec<String>) -> BTreeSet<String> {
    let mut calendars = BTreeSet::new();
    for calendar in &settings.calendars {
        problems.extend(calendar.compile().err().into_iter().flatten());
        calendars.insert(calendar.name.clone());
    }
    let mut policies = BTreeSet::new();
    for policy in &settings.policies {
        problems.extend(policy.validate(&calendars).err().into_iter().flatten());
        policies.insert(policy.name.clone());
    }
    policies
}

/// Checks queues; their names.
fn queues(settings: &Settings, policies: &BTreeSet<String>, problems: &mut Vec<String>) -> BTreeSet<String> {
    for queue in &settings.queues {
        known(
            queue.policy.as_deref(),
            policies,
            &format!("queues.{}.policy", queue.name),
            problems,
        );
    }
    settings.queues.iter().map(|queue| queue.name.clone()).collect()
}

fn rules(settings: &Settings, queues: &BTreeSet<String>, policies: &BTreeSet<String>, problems: &mut Vec<String>) {
    let compiled = RuleSet::compile(settings.rules.clone(), Some(Known { queues, policies }));
    problems.extend(compiled.err().into_iter().flatten());
}

/// Checks a reference by name.
fn known(name: Option<&str>, names: &BTreeSet<String>, path: &str, problems: &mut Vec<String>) {
    let Some(name) = name.filter(|name| !names.contains(*name)) else {
        return;
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    problems.push(match names.as_slice() {
        [] => format!("{path}: {name:?} is not declared, and nothing else is"),
        names => format!("{path}: {name:?} is not declared; there are {}", names.join(", ")),
    });
}

/// Builds the accounts one by one, so that each says what is wrong with it.
fn accounts(settings: &Settings, keys: Keys, queues: &BTreeSet<String>, problems: &mut Vec<String>) -> Accounts {
    let mut accounts = Accounts::new();
    // Private addresses are refused, unless an account allows them for itself.
    let http = match Guard::new(false) {
        Ok(http) => http,
        Err(reason) => {
            problems.push(reason);
            return accounts;
        }
    };
    let surroundings = Surroundings {
        keys,
        public_url: settings.public_url(),
        http,
        calendars: settings.calendars.clone(),
    };
    for account in &settings.accounts {
        let path = format!("accounts.{}", account.name);
        known(account.queue.as_deref(), queues, &format!("{path}.queue"), problems);
        match channels::list::build(std::slice::from_ref(account), &surroundings) {
            Ok(built) => accounts.extend(built),
            Err(reason) => {
                // The channels' own path is ours again.
                let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(&reason);
                let rest = Value::Table(account.rest.clone());
                problems.push(explain::message(&path, Some(&rest), reason));
            }
        }
    }
    accounts
}

/// Who answers for a live account after its visitors have left must be able to
/// write first.
fn mail_accounts(accounts: &Accounts, problems: &mut Vec<String>) {
    for (name, account) in accounts {
        let Some(mail_account) = account.channel.declaration().live.and_then(|live| live.mail_account) else {
            continue;
        };
        let is_able = |account: &Account| account.channel.declaration().begins.is_some();
        if !accounts.get(&mail_account).is_some_and(is_able) {
            let able: Vec<&str> = accounts
                .iter()
                .filter(|(_, account)| is_able(account))
                .map(|(name, _)| name.as_str())
                .collect();
            problems.push(format!(
                "accounts.{name}.mail_account: {mail_account:?} is no account that can write first; those that can: {}",
                able.join(", ")
            ));
        }
    }
}
