//! What settings declare for deciding (queues, calendars, policies, rules,
//! accounts' plans), imported at start; changed content becomes a new version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use model::calendar::Calendar;
use model::context::{AccountPlan, Book, Queue};
use model::rule::{Rule, RuleSet};
use model::sla::Policy;

use crate::connection::Connection;
use crate::sql::{get, json, sql};
use crate::{Error, Store};

/// The declared part of the settings.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    pub queues: Vec<Queue>,
    pub calendars: Vec<Calendar>,
    pub policies: Vec<Policy>,
    pub rules: Vec<Rule>,
    pub employee_domains: BTreeSet<String>,
}

/// The book as it stood at one count of its changes.
pub(crate) struct Cached {
    changes: i64,
    book: Arc<Book>,
}

/// One version of one thing that settings declare. Lists (queues, rules, domains)
/// are one thing without a name, for their order matters.
struct Definition {
    kind: String,
    name: String,
    version: i64,
    is_current: bool,
    content: Value,
}

impl Store {
    /// Imports what the settings declare. Same content: no new version.
    pub async fn declare(&self, declared: &Declared) -> Result<(), Error> {
        let doing = "importing what the settings declare";
        let mut wanted = declared.definitions()?;
        let mut transaction = self.begin(doing).await?;
        lock_book(&mut transaction).await?;
        let known = definitions(&mut transaction).await?;
        let mut is_changed = false;
        for definition in known.iter().filter(|definition| definition.is_current) {
            let key = (definition.kind.as_str(), definition.name.as_str());
            if wanted.get(&key) == Some(&definition.content) {
                wanted.remove(&key);
                continue;
            }
            retire(&mut transaction, definition).await?;
            is_changed = true;
        }
        for ((kind, name), content) in wanted {
            let versions = known.iter().filter(|known| known.kind == kind && known.name == name);
            let latest = versions.map(|known| known.version).max().unwrap_or(0);
            sql(
                "INSERT INTO definitions (kind, name, version, is_current, content) VALUES ($1, $2, $3, 1, $4)",
                doing,
            )
            .bind(kind)
            .bind(name)
            .bind(latest + 1)
            .bind(content.to_string())
            .execute(&mut transaction)
            .await?;
            is_changed = true;
        }
        if is_changed {
            count_change(&mut transaction).await?;
        }
        transaction.commit(doing).await
    }

    /// The book as it stands; from memory, if nothing has changed (one cheap query).
    pub async fn book(&self) -> Result<Arc<Book>, Error> {
        let mut connection = self.read("reading the book").await?;
        // Before its content: a change in between is seen again next time.
        let changes = changes(&mut connection).await?;
        {
            let cached = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(cached) = cached.as_ref().filter(|cached| cached.changes == changes) {
                return Ok(cached.book.clone());
            }
        }
        let definitions = definitions(&mut connection).await?;
        let accounts = plans(&mut connection).await?;
        let book = Arc::new(compose(definitions, accounts)?);
        let mut cached = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        *cached = Some(Cached {
            changes,
            book: book.clone(),
        });
        Ok(book)
    }
}

impl Declared {
    /// By kind and name. Lists are one thing, for their order matters.
    fn definitions(&self) -> Result<BTreeMap<(&str, &str), Value>, Error> {
        let mut wanted: BTreeMap<(&str, &str), Value> = BTreeMap::new();
        wanted.insert(("queues", ""), to_value(&self.queues)?);
        wanted.insert(("rules", ""), to_value(&self.rules)?);
        wanted.insert(("employee_domains", ""), to_value(&self.employee_domains)?);
        for calendar in &self.calendars {
            wanted.insert(("calendar", &calendar.name), to_value(calendar)?);
        }
        for policy in &self.policies {
            wanted.insert(("policy", &policy.name), to_value(policy)?);
        }
        Ok(wanted)
    }
}

/// Makes others who change the book wait until this transaction ends.
pub(crate) async fn lock_book(connection: &mut Connection) -> Result<(), Error> {
    sql(
        "UPDATE counters SET value = value WHERE name = 'book'",
        "locking the book",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes every process read the book anew.
pub(crate) async fn count_change(connection: &mut Connection) -> Result<(), Error> {
    sql(
        "UPDATE counters SET value = value + 1 WHERE name = 'book'",
        "counting a change of the book",
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn changes(connection: &mut Connection) -> Result<i64, Error> {
    let row = sql("SELECT value FROM counters WHERE name = 'book'", "reading the book")
        .first(connection)
        .await?;
    row.as_ref().map_or(Ok(0), |row| get(row, "value"))
}

async fn definitions(connection: &mut Connection) -> Result<Vec<Definition>, Error> {
    let found = sql(
        "SELECT kind, name, version, is_current, content FROM definitions ORDER BY kind, name, version",
        "reading the book",
    )
    .all(connection)
    .await?;
    found
        .iter()
        .map(|row| {
            Ok(Definition {
                kind: get(row, "kind")?,
                name: get(row, "name")?,
                version: get(row, "version")?,
                is_current: get::<i64>(row, "is_current")? != 0,
                content: json(row, "content")?,
            })
        })
        .collect()
}

async fn plans(connection: &mut Connection) -> Result<BTreeMap<String, AccountPlan>, Error> {
    let found = sql(
        "SELECT plan FROM accounts WHERE gone_at IS NULL",
        "reading the accounts' plans",
    )
    .all(connection)
    .await?;
    found
        .iter()
        .map(|row| {
            let plan: AccountPlan = json(row, "plan")?;
            Ok((plan.name.clone(), plan))
        })
        .collect()
}

async fn retire(connection: &mut Connection, definition: &Definition) -> Result<(), Error> {
    sql(
        "UPDATE definitions SET is_current = 0 WHERE kind = $1 AND name = $2 AND version = $3",
        "retiring a definition",
    )
    .bind(&definition.kind)
    .bind(&definition.name)
    .bind(definition.version)
    .execute(connection)
    .await?;
    Ok(())
}

fn compose(definitions: Vec<Definition>, accounts: BTreeMap<String, AccountPlan>) -> Result<Book, Error> {
    let mut book = Book {
        accounts,
        ..Book::default()
    };
    for definition in definitions {
        let Definition {
            kind,
            name,
            version,
            is_current,
            content,
        } = definition;
        match (kind.as_str(), is_current) {
            ("calendar", _) => {
                if is_current {
                    book.current_calendars.insert(name.clone(), version);
                }
                let calendar: Calendar = of_value(content)?;
                let business_time = calendar
                    .compile()
                    .map_err(|errors| Error::corrupt("reading a calendar", errors.join("; ")))?;
                book.sla.calendars.insert((name, version), Arc::new(business_time));
            }
            ("policy", _) => {
                if is_current {
                    book.current_policies.insert(name.clone(), version);
                }
                book.sla.policies.insert((name, version), Arc::new(of_value(content)?));
            }
            ("queues", true) => book.queues = of_value(content)?,
            ("employee_domains", true) => book.employee_domains = of_value(content)?,
            ("rules", true) => {
                book.rules_version = version;
                let rules: Vec<Rule> = of_value(content)?;
                // Queues and policies were checked against the settings they came with.
                book.rules = RuleSet::compile(rules, None)
                    .map_err(|errors| Error::corrupt("reading the rules", errors.join("; ")))?;
            }
            // Earlier versions, and kinds of a later program.
            _ => {}
        }
    }
    Ok(book)
}

fn to_value<T: Serialize>(declared: &T) -> Result<Value, Error> {
    serde_json::to_value(declared).map_err(|error| Error::Settings(format!("settings that are no JSON: {error}")))
}

fn of_value<T: DeserializeOwned>(content: Value) -> Result<T, Error> {
    serde_json::from_value(content).map_err(|error| Error::corrupt("reading a definition", error))
}
