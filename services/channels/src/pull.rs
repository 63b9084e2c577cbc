//! Sources that we go to (mailboxes, long polls), each read by one worker at a
//! time under a lease.

use store::Store;
use store::lease::Lease;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;
use crate::list::Accounts;

/// What a channel's `pull` works with.
pub struct Source {
    pub account: String,
    pub channel: String,
    pub inbox: Inbox,
    pub store: Store,
    pub lease: Lease,
    /// Stop of the process, or loss of the lease.
    pub stop: CancellationToken,
}

/// Pulls from every account that has a source, until `stop`.
pub async fn run(
    _accounts: Accounts,
    _inbox: Inbox,
    _store: Store,
    _owner: String,
    _lease_period: std::time::Duration,
    _stop: CancellationToken,
) {
    unimplemented!()
}
