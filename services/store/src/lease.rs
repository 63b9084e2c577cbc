//! Leases: (name, owner, fence, beat). A challenger takes one by compare-and-set
//! after it has seen one beat unchanged for the whole period on its own
//! monotonic clock.

use crate::{Error, Store};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A lease that we hold. Its beat goes on in the background until it is dropped
/// or lost.
pub struct Lease {
    pub name: String,
    pub owner: String,
    /// Rises with every change of owner; every write under the lease checks it.
    pub fence: i64,
    /// Cancelled when the lease is lost (somebody took it, or its beat could not
    /// be written for a whole period).
    pub lost: CancellationToken,
}

/// Who holds a lease, for pages and metrics.
#[derive(Clone, Debug)]
pub struct LeaseHolder {
    pub name: String,
    pub owner: String,
    pub fence: i64,
}

impl Store {
    /// Waits until the lease is ours. Cancel by dropping.
    pub async fn hold_lease(&self, _name: &str, _owner: &str, _period: Duration) -> Lease {
        unimplemented!()
    }

    /// Gives the lease back at once, so that the next owner need not wait.
    pub async fn release_lease(&self, _lease: &Lease) -> Result<(), Error> {
        unimplemented!()
    }

    /// All leases.
    pub async fn lease_holders(&self) -> Result<Vec<LeaseHolder>, Error> {
        unimplemented!()
    }
}
