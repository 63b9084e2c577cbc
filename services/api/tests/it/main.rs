//! The API, as its callers meet it: through the router, on a real store that is
//! filled by the model's own decisions.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

mod house;

mod accounts;
mod contacts;
mod conversations;
mod files;
mod messages;
mod openapi;
mod parked;
mod reach;
mod replies;
mod requests;
mod tickets;
mod windows;
