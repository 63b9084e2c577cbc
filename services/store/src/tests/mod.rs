//! The contract of the store, on both databases.

mod batches;
mod changes;
mod contexts;
mod desk;
mod given;
mod live;
mod outages;
mod outbox;
mod persons;
mod races;
mod refusals;
