//! Settings: what `config.default.toml`, the operator's file and the environment
//! say together. Read as TOML ([`read`]), made into these types here, and checked
//! as a whole ([`check`]) before a port opens or a file is created.

pub mod check;
mod explain;
mod read;

use std::path::{Path, PathBuf};

use channels::list::AccountSettings;
use model::calendar::Calendar;
use model::context::Queue;
use model::file::Limits;
use model::outbound::Join;
use model::rule::Rule;
use model::sla::Policy;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// The manual of all settings, and their defaults.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The file that is read where no other is named and this one is there.
pub const DEFAULT_FILE: &str = "tributary.toml";

/// All settings of the installation.
#[derive(Clone)]
pub struct Settings {
    pub public: Public,
    pub desk: Listener,
    pub ops: Listener,
    pub data: Data,
    pub keys: Keys,
    pub store: Location,
    pub bus: Bus,
    pub spool: Spool,
    pub blobs: Location,
    pub files: Limits,
    pub leases: Leases,
    pub log: Log,
    pub router: Router,
    pub accounts: Vec<AccountSettings>,
    pub queues: Vec<Queue>,
    pub calendars: Vec<Calendar>,
    pub policies: Vec<Policy>,
    pub rules: Vec<Rule>,
    pub people: Vec<Person>,
    pub employee_domains: Vec<String>,
}

/// The public listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Public {
    pub listen: String,
    pub url: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub listen: String,
}

/// The data folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    pub path: PathBuf,
}

/// The installation's keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub files: Vec<PathBuf>,
}

/// Where something lies that has a default place in the data folder.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    pub url: Option<String>,
}

/// The event log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bus {
    pub url: Option<String>,
    pub partitions: i32,
    pub kafka: Kafka,
}

/// What Kafka wants of its clients.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub security_protocol: Option<String>,
    pub sasl_mechanism: Option<String>,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// PEM, as are the next two.
    pub ca: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<SecretString>,
}

/// The spool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    pub path: Option<PathBuf>,
    pub max_bytes: u64,
}

/// Leases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leases {
    pub period_seconds: u64,
}

/// The program's log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: Option<LogFormat>,
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

/// The router.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    pub readers: usize,
}

/// A person of the desk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    pub name: String,
}

/// What is wrong with the settings, a line for each problem.
#[derive(Debug)]
pub struct Invalid(pub Vec<String>);

impl std::fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Invalid {}

/// Reads the settings: the file that is named, else [`DEFAULT_FILE`] if it is
/// there, and the environment. They are read, not checked.
pub fn load(file: Option<&Path>) -> Result<Settings, Invalid> {
    let file = file.or_else(|| {
        let default = Path::new(DEFAULT_FILE);
        default.exists().then_some(default)
    });
    let text = match file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Invalid(vec![format!("{}: {error}", path.display())]))?
        }
        None => String::new(),
    };
    let name = file.map(|path| path.display().to_string()).unwrap_or_default();
    from_text(&name, &text, std::env::vars_os().filter_map(read::as_text).collect())
}

/// The settings that this text (of the file of this name) makes together with
/// the defaults and the environment.
pub fn from_text(name: &str, text: &str, environment: Vec<(String, String)>) -> Result<Settings, Invalid> {
    let mut problems = Vec::new();
    let table = read::table(name, text, &environment, &mut problems)?;
    let settings = typed(table, &mut problems);
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(Invalid(problems)),
    }
}

/// Makes the table into types. `None` comes with at least one problem.
fn typed(mut table: Table, problems: &mut Vec<String>) -> Option<Settings> {
    // Every section is read before any is given up, so that all problems show.
    let public = section(&mut table, "public", problems);
    let desk = section(&mut table, "desk", problems);
    let ops = section(&mut table, "ops", problems);
    let data = section(&mut table, "data", problems);
    let keys = section(&mut table, "keys", problems);
    let store = section(&mut table, "store", problems);
    let bus = section(&mut table, "bus", problems);
    let spool = section(&mut table, "spool", problems);
    let blobs = section(&mut table, "blobs", problems);
    let files = section(&mut table, "files", problems);
    let leases = section(&mut table, "leases", problems);
    let log = section(&mut table, "log", problems);
    let router = section(&mut table, "router", problems);
    let accounts = accounts(&mut table, problems);
    let queues = list(&mut table, "queues", problems);
    let calendars = list(&mut table, "calendars", problems);
    let policies = list(&mut table, "policies", problems);
    let rules = list(&mut table, "rules", problems);
    let people = list(&mut table, "people", problems);
    let employee_domains = match table.remove("employee_domains") {
        Some(value) => entry("employee_domains", value, problems),
        None => Some(Vec::new()),
    };
    problems.extend(table.keys().map(|key| explain::unknown_key("", key, SECTIONS)));
    Some(Settings {
        public: public?,
        desk: desk?,
        ops: ops?,
        data: data?,
        keys: keys?,
        store: store?,
        bus: bus?,
        spool: spool?,
        blobs: blobs?,
        files: files?,
        leases: leases?,
        log: log?,
        router: router?,
        accounts: accounts?,
        queues: queues?,
        calendars: calendars?,
        policies: policies?,
        rules: rules?,
        people: people?,
        employee_domains: employee_domains?,
    })
}

const SECTIONS: &[&str] = &[
    "public",
    "desk",
    "ops",
    "data",
    "keys",
    "store",
    "bus",
    "spool",
    "blobs",
    "files",
    "leases",
    "log",
    "router",
    "accounts",
    "queues",
    "calendars",
    "policies",
    "rules",
    "people",
    "employee_domains",
];

fn section<T: DeserializeOwned>(table: &mut Table, name: &str, problems: &mut Vec<String>) -> Option<T> {
    let value = table.remove(name).unwrap_or_else(|| Value::Table(Table::new()));
    entry(name, value, problems)
}

fn list<T: DeserializeOwned>(table: &mut Table, name: &str, problems: &mut Vec<String>) -> Option<Vec<T>> {
    let entries = entries(table, name, problems)?;
    let read: Vec<Option<T>> = entries
        .into_iter()
        .map(|(path, value)| entry(&path, value, problems))
        .collect();
    read.into_iter().collect()
}

/// The common part of an account is ours, the rest its channel's.
fn accounts(table: &mut Table, problems: &mut Vec<String>) -> Option<Vec<AccountSettings>> {
    #[derive(Deserialize)]
    struct Common {
        name: String,
        channel: String,
        queue: Option<String>,
        join: Option<Join>,
    }
    let mut accounts = Vec::new();
    for (path, value) in entries(table, "accounts", problems)? {
        let Some(common) = entry::<Common>(&path, value.clone(), problems) else {
            continue;
        };
        let mut rest = match value {
            Value::Table(rest) => rest,
            _ => Table::new(),
        };
        rest.retain(|key, _| !["name", "channel", "queue", "join"].contains(&key));
        accounts.push(AccountSettings {
            name: common.name,
            channel: common.channel,
            queue: common.queue,
            join: common.join,
            rest,
        });
    }
    Some(accounts)
}

/// The entries of an array of tables, each with its path for messages.
fn entries(table: &mut Table, name: &str, problems: &mut Vec<String>) -> Option<Vec<(String, Value)>> {
    match table.remove(name) {
        None => Some(Vec::new()),
        Some(Value::Array(values)) => Some(
            values
                .into_iter()
                .enumerate()
                .map(|(index, value)| (read::entry_path(name, index, &value), value))
                .collect(),
        ),
        Some(_) => {
            problems.push(format!("{name}: this is a list; write [[{name}]]"));
            None
        }
    }
}

fn entry<T: DeserializeOwned>(path: &str, value: Value, problems: &mut Vec<String>) -> Option<T> {
    match value.clone().try_into() {
        Ok(read) => Some(read),
        Err(error) => {
            problems.push(explain::error(path, &value, &error));
            None
        }
    }
}

impl Settings {
    /// How vendors see us, without a slash at its end.
    pub fn public_url(&self) -> String {
        match &self.public.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", self.public.listen),
        }
    }

    /// The database.
    pub fn store_url(&self) -> String {
        let default = || format!("sqlite:{}", self.in_data("desk.db").display());
        self.store.url.clone().unwrap_or_else(default)
    }

    /// The event log.
    pub fn bus_url(&self) -> String {
        let default = || format!("local:{}", self.in_data("log.db").display());
        self.bus.url.clone().unwrap_or_else(default)
    }

    /// The folder of large bytes.
    pub fn blobs_url(&self) -> String {
        let default = || format!("file:{}", self.in_data("blobs").display());
        self.blobs.url.clone().unwrap_or_else(default)
    }

    /// The spool's file.
    pub fn spool_path(&self) -> PathBuf {
        self.spool.path.clone().unwrap_or_else(|| self.in_data("spool.db"))
    }

    /// Whether the event log is Kafka, which may be away.
    pub fn has_kafka(&self) -> bool {
        self.bus_url().starts_with("kafka:")
    }

    /// What the bus must know; only what takes pushed input has a spool.
    pub fn bus_settings(&self, takes_pushed_input: bool) -> bus::Settings {
        let spool = (takes_pushed_input && self.has_kafka()).then(|| bus::SpoolSettings {
            path: self.spool_path(),
            max_bytes: self.spool.max_bytes,
        });
        bus::Settings {
            url: self.bus_url(),
            spool,
            blobs_url: self.blobs_url(),
            partitions: self.bus.partitions,
            kafka: self.kafka_settings(),
        }
    }

    /// What Kafka wants of its clients.
    pub fn kafka_settings(&self) -> bus::KafkaSettings {
        let kafka = self.bus.kafka.clone();
        bus::KafkaSettings {
            security_protocol: kafka.security_protocol.unwrap_or_else(|| "plaintext".to_owned()),
            sasl_mechanism: kafka.sasl_mechanism,
            username: kafka.username,
            password: kafka.password,
            ca: kafka.ca,
            certificate: kafka.certificate,
            key: kafka.key,
        }
    }

    /// How long a lease's owner may be silent.
    pub fn lease_period(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.leases.period_seconds)
    }

    /// A file of this name in the data folder.
    pub fn in_data(&self, name: &str) -> PathBuf {
        self.data.path.join(name)
    }
}

#[cfg(test)]
mod tests;
