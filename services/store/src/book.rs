//! What settings declare for deciding (queues, calendars, policies, rules,
//! accounts' plans), imported at start; changed content becomes a new version.

use crate::{Error, Store};
use model::calendar::Calendar;
use model::context::{Book, Queue};
use model::rule::Rule;
use model::sla::Policy;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The declared part of the settings.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    pub queues: Vec<Queue>,
    pub calendars: Vec<Calendar>,
    pub policies: Vec<Policy>,
    pub rules: Vec<Rule>,
    pub employee_domains: BTreeSet<String>,
}

impl Store {
    /// Imports what the settings declare. Same content: no new version.
    pub async fn declare(&self, _declared: &Declared) -> Result<(), Error> {
        unimplemented!()
    }

    /// The book as it stands; from memory, if nothing has changed (one cheap query).
    pub async fn book(&self) -> Result<Arc<Book>, Error> {
        unimplemented!()
    }
}
