//! Why the store could not do it.

/// Variants differ where a caller acts differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is away, or gave up on us: back off and try again. The
    /// outcome of a commit may be unknown.
    #[error("the database is unavailable while {doing}")]
    Unavailable {
        doing: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// The database refuses what was to be written: halve the batch, park the culprit.
    #[error("the database refuses {doing}")]
    Refused {
        doing: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// What was read is not what this program writes: stop.
    #[error("the database holds something unreadable: {0}")]
    Corrupt(String),
    /// The settings are wrong, or the schema is another version: stop.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// Sorts what the driver says. SQLSTATE has five characters, the codes of
    /// SQLite have fewer.
    pub(crate) fn from_sqlx(doing: &'static str, source: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &source {
            let code = database.code().unwrap_or_default().into_owned();
            let verdict = if code.len() == 5 {
                Verdict::of_sqlstate(&code)
            } else {
                Verdict::of_sqlite(&code)
            };
            return match verdict {
                Verdict::Unavailable => Self::Unavailable { doing, source },
                Verdict::Refused => Self::Refused { doing, source },
                Verdict::Corrupt => Self::Corrupt(format!("while {doing}: {source}")),
                Verdict::Settings => Self::Settings(format!(
                    "the database does not understand {doing}: {source}; is its schema migrated?"
                )),
            };
        }
        match source {
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Self::Refused { doing, source },
            sqlx::Error::Configuration(_) => Self::Settings(format!("the store's url is wrong: {source}")),
            sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::AnyDriverError(_)
            | sqlx::Error::RowNotFound => Self::Corrupt(format!("while {doing}: {source}")),
            _ => Self::Unavailable { doing, source },
        }
    }

    /// Whether another writer was in the way: a deadlock, a serialization
    /// failure, a unique value that somebody else wrote first.
    pub(crate) fn is_conflict(&self) -> bool {
        let (Self::Unavailable { source, .. } | Self::Refused { source, .. }) = self else {
            return false;
        };
        source.as_database_error().is_some_and(|database| {
            database.is_unique_violation()
                || matches!(database.code().as_deref(), Some("40001" | "40P01" | "40002" | "55P03"))
        })
    }

    /// What a column holds is not what this program writes there.
    pub(crate) fn corrupt(doing: &str, found: impl std::fmt::Display) -> Self {
        Self::Corrupt(format!("while {doing}: {found}"))
    }
}

enum Verdict {
    Unavailable,
    Refused,
    Corrupt,
    Settings,
}

impl Verdict {
    /// By class, Appendix A of PostgreSQL's manual.
    fn of_sqlstate(code: &str) -> Self {
        match (&code[..2], code) {
            // Data exception, constraint, a limit such as the size of an index entry.
            ("22" | "23" | "44" | "54", _) => Self::Refused,
            // A password or a database that is not there is a setting.
            ("28" | "3D" | "3F", _) => Self::Settings,
            ("42", _) => Self::Settings,
            ("XX", "XX001" | "XX002") => Self::Corrupt,
            _ => Self::Unavailable,
        }
    }

    /// By the primary code, the lowest byte: <https://www.sqlite.org/rescode.html>.
    fn of_sqlite(code: &str) -> Self {
        match code.parse::<i64>().map(|code| code & 0xff) {
            // TOOBIG, CONSTRAINT, MISMATCH, RANGE.
            Ok(18 | 19 | 20 | 25) => Self::Refused,
            // ERROR: a statement that does not fit the schema.
            Ok(1) => Self::Settings,
            // CORRUPT, NOTADB.
            Ok(11 | 26) => Self::Corrupt,
            _ => Self::Unavailable,
        }
    }
}
