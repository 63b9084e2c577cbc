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
