//! The contract of the store, on both databases.

mod batches;
mod desk;
mod given;
mod outbox;
mod races;
mod refusals;
