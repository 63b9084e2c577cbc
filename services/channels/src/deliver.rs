//! The outbox: claims due messages and hands them to their channels.

use store::Store;
use tokio_util::sync::CancellationToken;

use crate::list::Accounts;

/// Delivers for every account, one lease each, until `stop`.
pub async fn run(
    _accounts: Accounts,
    _store: Store,
    _blobs: bus::Blobs,
    _owner: String,
    _lease_period: std::time::Duration,
    _stop: CancellationToken,
) {
    unimplemented!()
}
