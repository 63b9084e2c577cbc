//! Writes what decisions want: one transaction, all or nothing.

use crate::{Error, Store};
use model::context::Changes;

/// The step of a partition that a batch makes: first statement of its transaction.
#[derive(Clone, Debug)]
pub struct Advance {
    pub topic: String,
    pub partition: i32,
    /// The store's offset that the decisions were made from.
    pub from: i64,
    pub to: i64,
}

/// What became of an `apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// A version moved, an insert was lost, a deadlock: reload, decide again.
    Stale,
    /// Somebody else advanced the partition: let go, look where it stands.
    Moved,
}

impl Store {
    /// Writes a batch's changes together with the advance of its partition.
    pub async fn apply(&self, _advance: &Advance, _changes: &Changes) -> Result<Outcome, Error> {
        unimplemented!()
    }

    /// Writes changes that come from no partition (an agent's, a clock's).
    /// Never answers [`Outcome::Moved`].
    pub async fn commit(&self, _changes: &Changes) -> Result<Outcome, Error> {
        unimplemented!()
    }
}
