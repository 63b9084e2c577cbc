//! What a kind of ticket declares: its states, resolution codes and verbs. A kind
//! is one file beside this one, without any code, and one line in [`KINDS`].

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
    /// Why it can be over, in the words of ITIL.
    pub resolution_codes: &'static [&'static str],
    /// What moves a ticket from state to state; nothing else does.
    pub verbs: &'static [Verb],
}

/// A state and the category that clocks and reports use.
#[derive(Debug)]
pub struct State {
    pub name: &'static str,
    pub category: Category,
}

/// A way from some states to one. A verb that leads to a resolved or closed state
/// needs a resolution code, given now or before.
#[derive(Debug)]
pub struct Verb {
    /// One of this type's constants.
    pub name: &'static str,
    /// Names of states.
    pub from: &'static [&'static str],
    /// Name of a state.
    pub to: &'static str,
}

impl Verb {
    /// Somebody takes up a new ticket: the first assignment, a person's first reply.
    pub const BEGIN: &'static str = "begin";
    /// The contact for whom it waited has written.
    pub const ANSWERED: &'static str = "answered";
    /// It has to wait for the contact.
    pub const HOLD_FOR_CUSTOMER: &'static str = "hold_for_customer";
    /// It has to wait for somebody else.
    pub const HOLD_INTERNALLY: &'static str = "hold_internally";
    /// The work is done; the contact may still disagree.
    pub const RESOLVE: &'static str = "resolve";
    /// Back to work: after a resolution, or when the waiting is over.
    pub const REOPEN: &'static str = "reopen";
    /// Over for good.
    pub const CLOSE: &'static str = "close";
    /// It was no work at all.
    pub const CANCEL: &'static str = "cancel";

    /// What every kind declares.
    pub const ALL: [&'static str; 8] = [
        Self::BEGIN,
        Self::ANSWERED,
        Self::HOLD_FOR_CUSTOMER,
        Self::HOLD_INTERNALLY,
        Self::RESOLVE,
        Self::REOPEN,
        Self::CLOSE,
        Self::CANCEL,
    ];
}

/// All kinds.
pub const KINDS: &[&Kind] = &[&super::case::CASE, &super::incident::INCIDENT];

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

impl Kind {
    /// Where a new ticket stands.
    pub fn initial(&self) -> &'static State {
        &self.states[0]
    }

    /// The state of that name.
    pub fn state(&self, name: &str) -> Option<&'static State> {
        self.states.iter().find(|state| state.name == name)
    }

    /// Where the verb leads from that state; `None` if it is not possible there.
    pub fn target(&self, verb: &str, from: &str) -> Option<&'static State> {
        let way = self
            .verbs
            .iter()
            .find(|way| way.name == verb && way.from.contains(&from))?;
        self.state(way.to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all_differ<'a>(names: impl Iterator<Item = &'a str>) -> bool {
        let mut seen = BTreeSet::new();
        names.into_iter().all(|name| seen.insert(name.to_owned()))
    }

    #[test]
    fn kinds_are_told_apart() {
        assert!(all_differ(KINDS.iter().map(|kind| kind.name)));
        assert!(all_differ(KINDS.iter().map(|kind| kind.prefix)));
        for kind in KINDS {
            assert_eq!(find(kind.name).unwrap().prefix, kind.prefix);
            assert_ne!(kind.name, "none", "rules say none for no ticket");
        }
        assert!(find("none").is_none());
    }

    #[test]
    fn declarations_are_consistent() {
        for kind in KINDS {
            let name = kind.name;
            assert!(kind.prefix.bytes().all(|byte| byte.is_ascii_uppercase()), "{name}");
            assert!(all_differ(kind.states.iter().map(|state| state.name)), "{name}");
            assert!(all_differ(kind.resolution_codes.iter().copied()), "{name}");
            assert!(!kind.resolution_codes.is_empty(), "{name}");
            assert_eq!(kind.initial().category, Category::Open, "{name}");
            for verb in kind.verbs {
                assert!(Verb::ALL.contains(&verb.name), "{name}: {verb:?}");
                assert!(!verb.from.is_empty(), "{name}: {verb:?}");
                assert!(kind.state(verb.to).is_some(), "{name}: {verb:?}");
                for from in verb.from {
                    let from = kind.state(from).unwrap();
                    let is_over = matches!(from.category, Category::Closed | Category::Cancelled);
                    assert!(!is_over, "{name}: nothing leads out of {}", from.name);
                }
            }
        }
    }

    #[test]
    fn each_verb_leads_to_its_category_and_one_state() {
        let expected = [
            (Verb::BEGIN, Category::Open),
            (Verb::ANSWERED, Category::Open),
            (Verb::HOLD_FOR_CUSTOMER, Category::WaitingOnCustomer),
            (Verb::HOLD_INTERNALLY, Category::WaitingInternally),
            (Verb::RESOLVE, Category::Resolved),
            (Verb::REOPEN, Category::Open),
            (Verb::CLOSE, Category::Closed),
            (Verb::CANCEL, Category::Cancelled),
        ];
        for kind in KINDS {
            for (verb, category) in expected {
                let ways: Vec<_> = kind.verbs.iter().filter(|way| way.name == verb).collect();
                assert!(!ways.is_empty(), "{}: {verb}", kind.name);
                for way in ways {
                    assert_eq!(kind.state(way.to).unwrap().category, category, "{}: {verb}", kind.name);
                }
                for state in kind.states {
                    let ways = kind.verbs.iter().filter(|way| way.name == verb);
                    let count = ways.filter(|way| way.from.contains(&state.name)).count();
                    assert!(count <= 1, "{}: {verb} from {}", kind.name, state.name);
                }
            }
        }
    }

    #[test]
    fn every_state_can_be_reached_and_left() {
        for kind in KINDS {
            for state in kind.states {
                let is_initial = state.name == kind.initial().name;
                let is_over = matches!(state.category, Category::Closed | Category::Cancelled);
                let reached = kind.verbs.iter().any(|verb| verb.to == state.name);
                let left = kind.verbs.iter().any(|verb| verb.from.contains(&state.name));
                assert!(is_initial || reached, "{}: {}", kind.name, state.name);
                assert_eq!(left, !is_over, "{}: {}", kind.name, state.name);
            }
        }
    }
}
