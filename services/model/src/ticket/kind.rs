//! What a kind of ticket declares: states, verbs and required fields. A kind is
//! one file beside this one and one line in [`KINDS`].

use super::Category;

/// A kind of ticket.
#[derive(Debug)]
pub struct Kind {
    /// `case`, `incident`, ….
    pub name: &'static str,
    /// What its numbers begin with.
    pub prefix: &'static str,
    /// The first is where a new ticket stands.
    pub states: &'static [State],
    pub resolution_codes: &'static [&'static str],
}

/// A state and the category that clocks and reports use.
#[derive(Debug)]
pub struct State {
    pub name: &'static str,
    pub category: Category,
}

/// All kinds.
pub const KINDS: &[&Kind] = &[&super::case::CASE, &super::incident::INCIDENT];

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}
