//! Object storage is back: blobs that lie on the shelf go there, and then the events
//! behind them go on their way.

use super::{BACKOFF, Spool};
use crate::{Blobs, EVENTS, Error};

impl Spool {
    /// Works for ever.
    pub(super) async fn clear_shelf(self, blobs: Blobs) {
        let mut pause = BACKOFF.0;
        let mut is_away = false;
        loop {
            match self.clear_some(&blobs).await {
                Ok(true) => pause = BACKOFF.0,
                Ok(false) => {
                    if std::mem::take(&mut is_away) {
                        tracing::info!("blobs go to their storage again");
                    }
                    self.shelf.rest().await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(%error, "blobs find no place, they wait in the spool with their events");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Whether there was something to do. A crash in between leaves some of it in both
    /// places, which is a repeat.
    async fn clear_some(&self, blobs: &Blobs) -> Result<bool, Error> {
        if self.shelf.move_blob(blobs).await? {
            return Ok(true);
        }
        let entries = self.shelf.events().await?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(false);
        };
        let (first, last) = (first.offset, last.offset);
        let _gate = self.gate.read().await;
        self.engage();
        let records = entries.into_iter().map(|entry| entry.record).collect();
        self.log.append(EVENTS, records, u64::MAX).await?;
        self.wake.notify_one();
        self.shelf.forget(first, last).await?;
        Ok(true)
    }
}
