//! What every reader of a source does: what it has read is durable before its place
//! moves (C1), and it waits while the log or the database is away.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Source;
use crate::backoff;
use crate::channel::{Input, Parsed, PullError, Unparsed};
use crate::inbox::Arrival;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Source {
    /// Publishes what `parse` makes of an input, for as long as it takes (C1); what
    /// cannot be parsed is parked (C6).
    pub async fn accept<F>(&self, input: &Input, parse: impl Fn() -> F) -> Result<(), PullError>
    where
        F: Future<Output = Result<Parsed, Unparsed>>,
    {
        let mut failures = 0;
        loop {
            let parsed = match parse().await {
                Ok(parsed) => parsed,
                Err(Unparsed::Parked { reason } | Unparsed::Rejected { reason }) => {
                    return self.park(input, &reason).await;
                }
            };
            let (account, channel) = (&self.account, &self.channel);
            let accepted = self
                .inbox
                .accept(account, channel, input.clone(), parsed.events, Arrival::Pulled);
            match accepted.await {
                Ok(()) => return Ok(()),
                Err(bus::Error::Malformed(reason)) => return self.park(input, &reason).await,
                Err(bus::Error::Unavailable(error)) => self.wait_for_log(&error, &mut failures).await,
                Err(error @ bus::Error::Settings(_)) => return Err(broken(&error)),
            }
        }
    }

    /// Keeps an input that is no events, for as long as it takes.
    pub async fn park(&self, input: &Input, reason: &str) -> Result<(), PullError> {
        let mut failures = 0;
        loop {
            let (account, channel) = (&self.account, &self.channel);
            match self.inbox.park(account, channel, input, reason, Arrival::Pulled).await {
                Ok(()) => return Ok(()),
                Err(bus::Error::Unavailable(error)) => self.wait_for_log(&error, &mut failures).await,
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// How far the source is read; `None` before the first time.
    pub async fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>, PullError> {
        let cursor = self.retry("reading the cursor", || self.store.cursor(&self.account));
        // Beginning anew would leave something out, so a person must look.
        cursor
            .await?
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| PullError {
                reason: format!("the account's cursor in the store cannot be read: {error}"),
            })
    }

    /// Moves the cursor; `false` if the lease is somebody else's.
    pub async fn move_cursor<T: Serialize>(&self, cursor: &T) -> Result<bool, PullError> {
        let value = serde_json::to_value(cursor).map_err(|error| broken(&error))?;
        self.retry("moving the cursor", || {
            self.store.move_cursor(&self.lease, &self.account, &value)
        })
        .await
    }

    /// The source answers, and so much waits there. For pages and gauges only, so its
    /// failure stops nothing.
    pub async fn seen(&self, waiting: usize) {
        let now = SystemTime::now().into();
        let noted = self.store.account_seen(&self.account, None, waiting as i64, now);
        if let Err(error) = noted.await {
            tracing::warn!(account.name = self.account, %error, "state of account not written");
        }
    }

    /// As long as the database is away.
    pub async fn retry<T, F>(&self, doing: &str, mut attempt: impl FnMut() -> F) -> Result<T, PullError>
    where
        F: Future<Output = Result<T, store::Error>>,
    {
        let mut failures = 0;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(error @ store::Error::Unavailable { .. }) => {
                    tracing::warn!(account.name = self.account, %error, doing, "source waits for the database");
                    wait(&mut failures).await;
                }
                Err(error) => {
                    return Err(PullError {
                        reason: format!("{doing}: {error}"),
                    });
                }
            }
        }
    }

    /// The input waits where it is, and so do we.
    async fn wait_for_log(&self, error: &str, failures: &mut u32) {
        tracing::warn!(account.name = self.account, error, "source waits for the event log");
        wait(failures).await;
    }
}

async fn wait(failures: &mut u32) {
    let wait = backoff::exponential(FIRST_WAIT, LONGEST_WAIT, *failures);
    *failures += 1;
    tokio::time::sleep(wait).await;
}

fn broken(error: &impl std::error::Error) -> PullError {
    PullError {
        reason: error.to_string(),
    }
}
