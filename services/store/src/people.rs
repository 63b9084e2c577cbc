//! People of the desk and their bearer tokens, kept as SHA-256.

use crate::{Error, Store};
use model::time::Moment;

impl Store {
    /// Creates the person if missing, and a token of theirs from its SHA-256 in
    /// hexadecimal.
    pub async fn create_token(&self, _person: &str, _token_sha256: &str, _at: Moment) -> Result<(), Error> {
        unimplemented!()
    }

    /// Whose token this is.
    pub async fn person_of_token(&self, _token_sha256: &str) -> Result<Option<String>, Error> {
        unimplemented!()
    }

    /// Whether any token exists.
    pub async fn has_tokens(&self) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Creates people who are missing (`[[people]]`).
    pub async fn declare_people(&self, _names: &[String]) -> Result<(), Error> {
        unimplemented!()
    }

    /// Whether there is such a person: who a ticket may be assigned to.
    pub async fn person_exists(&self, _name: &str) -> Result<bool, Error> {
        unimplemented!()
    }
}
