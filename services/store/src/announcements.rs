//! Announcements wait here for the relay, in the order of each subject's versions.

use crate::{Error, Store};
use model::context::Announcement;

impl Store {
    /// The oldest announcements, each subject's in order of version, with the key
    /// to remove them by.
    pub async fn next_announcements(&self, _limit: i64) -> Result<Vec<Announcement>, Error> {
        unimplemented!()
    }

    /// Removes what has been published, if the fence of the relay's lease still holds.
    pub async fn remove_announcements(
        &self,
        _lease: &crate::lease::Lease,
        _published: &[Announcement],
    ) -> Result<bool, Error> {
        unimplemented!()
    }

    /// How many wait.
    pub async fn announcements_pending(&self) -> Result<i64, Error> {
        unimplemented!()
    }
}
