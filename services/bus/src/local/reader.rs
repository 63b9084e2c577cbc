//! Reads a topic of a log file, from the beginning or from where it is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::{Entry, Log, beyond_end};
use crate::{Batch, Error, Record, wire};

/// Reads a topic of the log. The readers of a group take turns: the next begins
/// when the one before is gone.
pub(crate) struct LocalReader {
    log: Log,
    topic: String,
    group: String,
    turn: Arc<Mutex<()>>,
    held: Option<OwnedMutexGuard<()>>,
    position: Option<i64>,
    appended: watch::Receiver<u64>,
}

/// How soon a reader sees what another process appended.
const POLL_PERIOD: Duration = Duration::from_millis(250);

impl LocalReader {
    pub(super) fn new(log: Log, topic: &str, group: &str, turn: Arc<Mutex<()>>) -> Self {
        let appended = log.appended.clone();
        Self {
            log,
            topic: topic.to_owned(),
            group: group.to_owned(),
            turn,
            held: None,
            position: None,
            appended,
        }
    }

    /// The next batch. Safe to drop while it waits.
    pub async fn next(&mut self, max: usize) -> Result<Batch, Error> {
        if self.held.is_none() {
            self.held = Some(self.turn.clone().lock_owned().await);
        }
        loop {
            self.appended.borrow_and_update();
            let position = match self.position {
                Some(position) => position,
                None => self.beginning().await?,
            };
            let entries = self.log.read(&self.topic, position, max.max(1)).await?.entries;
            if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                let from = self.position.unwrap_or(first.offset);
                let to = last.offset + 1;
                self.position = Some(to);
                return Ok(self.batch(from, to, entries));
            }
            tokio::select! {
                changed = self.appended.changed() => {
                    changed.map_err(|_| Error::Unavailable("the log is closed".to_owned()))?;
                }
                () = tokio::time::sleep(POLL_PERIOD) => {}
            }
        }
    }

    /// Goes on reading at `offset`, which cannot lie behind the log's end.
    pub async fn seek(&mut self, offset: i64) -> Result<(), Error> {
        let end = self.log.totals(&self.topic).await?.next_offset;
        if offset > end {
            return Err(beyond_end(&self.topic, 0, offset, end));
        }
        self.position = Some(offset);
        Ok(())
    }

    /// Notes where the group stands.
    pub fn commit(&self, next: i64) {
        self.log.commit(&self.topic, &self.group, next);
    }

    /// One record before where the group stands: a batch comes even if nothing is
    /// new, so that a store that was set back by a backup says so at once.
    async fn beginning(&self) -> Result<i64, Error> {
        let committed = self.log.committed(&self.topic, &self.group).await?;
        Ok(committed.map_or(0, |next| next.saturating_sub(1).max(0)))
    }

    fn batch(&self, from: i64, to: i64, entries: Vec<Entry>) -> Batch {
        let record = |entry: Entry| Record {
            offset: entry.offset,
            event: wire::decode(&entry.record.value),
        };
        Batch {
            topic: self.topic.clone(),
            partition: 0,
            from,
            to,
            records: entries.into_iter().map(record).collect(),
        }
    }
}
