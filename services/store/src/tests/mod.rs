//! The contract of the store, on both databases.

mod batches;
mod changes;
mod contexts;
mod desk;
mod erase;
mod given;
mod live;
mod media;
mod outages;
mod outbox;
mod persons;
mod races;
mod refusals;
