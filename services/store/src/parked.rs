//! Inputs that wait for a person: parked (unreadable or refused) and quarantined
//! (wrong signature). `apply` writes them; a quarantine over its quota (1,000
//! inputs, 16 MiB an account) drops the new input.

use crate::{Error, Store};
use model::context::ParkedInput;
use model::time::Moment;

/// One parked input as lists show it.
#[derive(Clone, Debug)]
pub struct ParkedSummary {
    pub id: String,
    pub account: String,
    pub channel: String,
    pub quarantined: bool,
    pub reason: String,
    pub size_bytes: i64,
    pub received_at: Moment,
    /// Set when it was replayed.
    pub replayed_at: Option<Moment>,
}

impl Store {
    /// The latest first, those received before `before` (a cursor: moment and id).
    pub async fn list_parked(
        &self,
        _before: Option<(Moment, String)>,
        _limit: i64,
    ) -> Result<Vec<ParkedSummary>, Error> {
        unimplemented!()
    }

    /// One with its bytes.
    pub async fn parked_input(&self, _id: &str) -> Result<Option<(ParkedInput, Option<Moment>)>, Error> {
        unimplemented!()
    }

    /// Notes that it was replayed. Its bytes stay.
    pub async fn mark_replayed(&self, _id: &str, _at: Moment) -> Result<bool, Error> {
        unimplemented!()
    }

    /// How many wait (not replayed), as (parked, quarantined).
    pub async fn parked_pending(&self) -> Result<(i64, i64), Error> {
        unimplemented!()
    }
}
