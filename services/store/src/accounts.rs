//! What channels tell of their accounts: kind, declaration, state, cursor.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use model::context::AccountPlan;
use model::outbound::Declaration;
use model::time::Moment;

use crate::book::{count_change, lock_book};
use crate::connection::Connection;
use crate::lease::{Lease, holds};
use crate::sql::{get, json, moment_if_any, rows, sql, to_json};
use crate::{Error, Store};

/// An account as pages show it.
#[derive(Clone, Debug)]
pub struct Account {
    pub plan: AccountPlan,
    pub declaration: Declaration,
    /// When its channel last had contact with the provider.
    pub last_seen_at: Option<Moment>,
    /// Owner of its lease, if it is leased.
    pub held_by: Option<String>,
    /// What is wrong with it now: with reading it, or else with sending; `None` if
    /// nothing.
    pub error: Option<String>,
    pub error_at: Option<Moment>,
    /// What is still to be fetched, where the channel can tell.
    pub waiting: i64,
}

impl Store {
    /// Writes kind, limits and plan of each account of the settings; accounts no
    /// longer declared are marked as gone and leave the lists.
    pub async fn declare_accounts(&self, accounts: &[(AccountPlan, Declaration)]) -> Result<(), Error> {
        let doing = "declaring accounts";
        let mut transaction = self.begin(doing).await?;
        lock_book(&mut transaction).await?;
        let mut changed = 0;
        for (plan, declaration) in accounts {
            changed += sql(
                "INSERT INTO accounts (name, plan, declaration, waiting) VALUES ($1, $2, $3, 0)
                 ON CONFLICT (name) DO UPDATE
                     SET plan = excluded.plan, declaration = excluded.declaration, gone_at = NULL
                     WHERE accounts.plan <> excluded.plan OR accounts.declaration <> excluded.declaration
                         OR accounts.gone_at IS NOT NULL",
                doing,
            )
            .bind(&plan.name)
            .bind(to_json(plan, doing)?)
            .bind(to_json(declaration, doing)?)
            .execute(&mut transaction)
            .await?;
        }
        let present = sql("SELECT name FROM accounts WHERE gone_at IS NULL", doing)
            .all(&mut transaction)
            .await?;
        for row in &present {
            let name: String = get(row, "name")?;
            if accounts.iter().any(|(plan, _)| plan.name == name) {
                continue;
            }
            changed += sql("UPDATE accounts SET gone_at = $1 WHERE name = $2", doing)
                .bind(Moment::from(SystemTime::now()))
                .bind(name)
                .execute(&mut transaction)
                .await?;
        }
        if changed > 0 {
            count_change(&mut transaction).await?;
        }
        transaction.commit(doing).await
    }

    /// All declared accounts, by name.
    pub async fn accounts(&self) -> Result<Vec<Account>, Error> {
        let statement = sql(
            "SELECT a.plan, a.declaration, a.last_seen_at, COALESCE(a.error, a.sending_error) AS error,
                 CASE WHEN a.error IS NOT NULL THEN a.error_at WHEN a.sending_error IS NOT NULL THEN a.sending_error_at
                 END AS error_at, a.waiting,
                 COALESCE(p.owner, d.owner) AS held_by
             FROM accounts AS a
             LEFT JOIN leases AS p ON p.name = 'pull:' || a.name AND p.owner <> ''
             LEFT JOIN leases AS d ON d.name = 'deliver:' || a.name AND d.owner <> ''
             WHERE a.gone_at IS NULL ORDER BY a.name",
            "reading accounts",
        );
        self.read_all(statement, |row| {
            Ok(Account {
                plan: json(row, "plan")?,
                declaration: json(row, "declaration")?,
                last_seen_at: moment_if_any(row, "last_seen_at")?,
                held_by: get(row, "held_by")?,
                error: get(row, "error")?,
                error_at: moment_if_any(row, "error_at")?,
                waiting: get(row, "waiting")?,
            })
        })
        .await
    }

    /// Notes contact (`error` `None`) or trouble with the provider, while its source is read.
    pub async fn account_seen(&self, name: &str, error: Option<&str>, waiting: i64, at: Moment) -> Result<(), Error> {
        let doing = "noting an account's state";
        let error = error.map(|text| text.replace('\0', ""));
        let error_at = error.as_ref().map(|_| at);
        let seen_at = if error.is_none() { Some(at) } else { None };
        let mut transaction = self.begin(doing).await?;
        sql(
            "UPDATE accounts SET last_seen_at = COALESCE($1, last_seen_at), error = $2, error_at = $3, waiting = $4
             WHERE name = $5",
            doing,
        )
        .bind(seen_at)
        .bind(error)
        .bind(error_at)
        .bind(waiting)
        .bind(name)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await
    }

    /// The same while messages are sent; neither says anything of the other.
    /// `sending_error_at` is when it was seen last, working or not.
    pub async fn account_sent(&self, name: &str, error: Option<&str>, at: Moment) -> Result<(), Error> {
        let doing = "noting an account's state";
        let error = error.map(|text| text.replace('\0', ""));
        let seen_at = if error.is_none() { Some(at) } else { None };
        let mut transaction = self.begin(doing).await?;
        sql(
            "UPDATE accounts SET last_seen_at = COALESCE($1, last_seen_at), sending_error = $2, sending_error_at = $3
             WHERE name = $4",
            doing,
        )
        .bind(seen_at)
        .bind(error)
        .bind(at)
        .bind(name)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await
    }

    /// Nobody reads these any more: what waited there for its reader comes another way.
    pub async fn nothing_waits(&self, names: &[&str]) -> Result<(), Error> {
        let doing = "noting accounts without a reader";
        let mut transaction = self.begin(doing).await?;
        rows(
            "UPDATE accounts AS t SET waiting = 0 FROM {rows} WHERE t.name = v.column1 AND t.waiting <> 0",
            doing,
        )
        .of(names.iter().copied())
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await
    }

    /// Whether sending is broken, and nothing waits to be sent that would show when it
    /// works again.
    pub async fn is_broken_and_idle(&self, name: &str) -> Result<bool, Error> {
        let statement = sql(
            "SELECT name FROM accounts WHERE name = $1 AND sending_error IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM outbox WHERE account = $1)",
            "reading an account's state",
        )
        .bind(name);
        let found: Vec<String> = self.read_all(statement, |row| get(row, "name")).await?;
        Ok(!found.is_empty())
    }

    /// The account's cursor (JSON of the channel's own).
    pub async fn cursor(&self, account: &str) -> Result<Option<serde_json::Value>, Error> {
        let statement = sql("SELECT position FROM cursors WHERE account = $1", "reading a cursor").bind(account);
        Ok(self.read_all(statement, |row| json(row, "position")).await?.pop())
    }

    /// Moves the cursor, if the lease's fence still holds; `false` if it does not.
    pub async fn move_cursor(&self, lease: &Lease, account: &str, cursor: &serde_json::Value) -> Result<bool, Error> {
        let doing = "moving a cursor";
        let mut transaction = self.begin(doing).await?;
        if !holds(&mut transaction, &lease.name, lease.fence).await? {
            return Ok(false);
        }
        sql(
            "INSERT INTO cursors (account, position) VALUES ($1, $2)
             ON CONFLICT (account) DO UPDATE SET position = excluded.position",
            doing,
        )
        .bind(account)
        .bind(cursor.to_string())
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await?;
        Ok(true)
    }

    /// Which of these external ids are known as stored messages, and how often.
    pub async fn known_external_ids(&self, external_ids: &[String]) -> Result<HashMap<String, i64>, Error> {
        let doing = "reading known external ids";
        let asked: BTreeSet<&String> = external_ids.iter().collect();
        let mut connection = self.read(doing).await?;
        let found = rows(
            "SELECT e.external_id, COUNT(*) AS messages FROM {rows}
             JOIN external_ids AS e ON e.external_id = v.column1 GROUP BY e.external_id",
            doing,
        )
        .of(asked)
        .all(&mut connection)
        .await?;
        found
            .iter()
            .map(|row| Ok((get(row, "external_id")?, get(row, "messages")?)))
            .collect()
    }
}

/// What vendors say of accounts, unless something was sent since.
pub(crate) async fn note_broken(
    connection: &mut Connection,
    broken: &BTreeMap<String, (Moment, String)>,
) -> Result<(), Error> {
    let mut statement = rows(
        "UPDATE accounts AS t SET sending_error = v.column2, sending_error_at = v.column3
         FROM {rows} WHERE t.name = v.column1 AND COALESCE(t.sending_error_at, 0) <= v.column3",
        "noting broken accounts",
    );
    for (name, (at, reason)) in broken {
        statement.push(vec![name.as_str().into(), reason.as_str().into(), (*at).into()]);
    }
    statement.execute(connection).await?;
    Ok(())
}
