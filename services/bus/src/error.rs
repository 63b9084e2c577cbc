//! Why the bus could not do it.

/// Variants differ where a caller acts differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither Kafka nor the spool took it, or the disk is full: answer 503, try
    /// again later.
    #[error("the event log is unavailable: {0}")]
    Unavailable(String),
    /// Bytes that are no event, or that can never be kept: park them.
    #[error("not an event: {0}")]
    Malformed(String),
    /// The settings are wrong, or log and store do not belong together: stop.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// Keeps the whole chain of causes, shortest first.
    pub(crate) fn unavailable(doing: &str, error: &dyn std::error::Error) -> Self {
        Self::Unavailable(describe(doing, error))
    }

    /// The same for what only a change of settings can mend.
    pub(crate) fn settings(doing: &str, error: &dyn std::error::Error) -> Self {
        Self::Settings(describe(doing, error))
    }
}

/// What was being done, and what came of it.
pub(crate) fn describe(doing: &str, error: &dyn std::error::Error) -> String {
    format!("{doing}: {}", model::error::chain(error))
}
