//! How tickets relate to each other.

use serde::{Deserialize, Serialize};

/// A relation from one ticket to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It takes up what a closed ticket left.
    Follows,
}
