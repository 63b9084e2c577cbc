//! Reads what the decisions about a batch need, in a number of statements that
//! does not depend on the batch.

use crate::{Error, Store};
use model::context::{Book, Context};
use model::event::Event;
use std::sync::Arc;

impl Store {
    /// What is known that bears on these events, and the partition's next offset
    /// (0 for one never seen).
    pub async fn context(
        &self,
        _book: Arc<Book>,
        _topic: &str,
        _partition: i32,
        _events: &[&Event],
    ) -> Result<Context, Error> {
        unimplemented!()
    }

    /// The next offset of each partition of a topic, by the store.
    pub async fn offsets(&self, _topic: &str) -> Result<Vec<(i32, i64)>, Error> {
        unimplemented!()
    }
}
