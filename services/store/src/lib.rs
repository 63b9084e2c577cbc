//! The desk's truth: SQLite or PostgreSQL behind one SQL text. Each write is one
//! function and one transaction. Nothing here decides.

pub mod error;

pub mod accounts;
pub mod announcements;
pub mod apply;
pub mod book;
pub mod context;
pub mod conversations;
pub mod lease;
pub mod outbox;
pub mod parked;
pub mod people;
pub mod tickets;

pub use error::Error;

/// The pools of one database.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens `sqlite:PATH` (created if missing) or `postgres://…`. Does not migrate.
    pub async fn open(_url: &str) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Brings the schema to this version. Safe to call from several processes at once.
    pub async fn migrate(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Waits until the schema is the one this program needs, or says that it is not.
    pub async fn check_schema(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
