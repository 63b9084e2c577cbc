//! The contract of the store, on both databases.

mod batches;
mod given;
mod outbox;
