//! People of the desk and their bearer tokens, kept as SHA-256.

use std::time::SystemTime;

use model::time::Moment;

use crate::connection::Connection;
use crate::sql::{get, sql};
use crate::{Error, Store};

impl Store {
    /// Creates the person if missing, and a token of theirs from its SHA-256 in
    /// hexadecimal.
    pub async fn create_token(&self, person: &str, token_sha256: &str, at: Moment) -> Result<(), Error> {
        let doing = "creating a token";
        let mut transaction = self.begin(doing).await?;
        create_person(&mut transaction, person, at).await?;
        sql(
            "INSERT INTO tokens (sha256, person, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            doing,
        )
        .bind(token_sha256)
        .bind(person)
        .bind(at)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await
    }

    /// Whose token this is.
    pub async fn person_of_token(&self, token_sha256: &str) -> Result<Option<String>, Error> {
        let statement = sql("SELECT person FROM tokens WHERE sha256 = $1", "reading a token").bind(token_sha256);
        Ok(self.read_all(statement, |row| get(row, "person")).await?.pop())
    }

    /// Whether any token exists.
    pub async fn has_tokens(&self) -> Result<bool, Error> {
        let statement = sql("SELECT person FROM tokens LIMIT 1", "reading tokens");
        let found: Vec<String> = self.read_all(statement, |row| get(row, "person")).await?;
        Ok(!found.is_empty())
    }

    /// Creates people who are missing (`[[people]]`).
    pub async fn declare_people(&self, names: &[String]) -> Result<(), Error> {
        let doing = "declaring people";
        let at = Moment::from(SystemTime::now());
        let mut transaction = self.begin(doing).await?;
        for name in names {
            create_person(&mut transaction, name, at).await?;
        }
        transaction.commit(doing).await
    }

    /// Whether there is such a person: who a ticket may be assigned to.
    pub async fn person_exists(&self, name: &str) -> Result<bool, Error> {
        let statement = sql("SELECT name FROM people WHERE name = $1", "reading a person").bind(name);
        let found: Vec<String> = self.read_all(statement, |row| get(row, "name")).await?;
        Ok(!found.is_empty())
    }
}

async fn create_person(connection: &mut Connection, name: &str, at: Moment) -> Result<(), Error> {
    sql(
        "INSERT INTO people (name, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        "creating a person",
    )
    .bind(name)
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}
