//! Customer-service cases.

use super::Category;
use super::kind::{Kind, State, Verb};

/// A case.
pub const CASE: Kind = Kind {
    name: "case",
    prefix: "CS",
    states: &[
        State {
            name: "new",
            category: Category::Open,
        },
        State {
            name: "open",
            category: Category::Open,
        },
        State {
            name: "awaiting_info",
            category: Category::WaitingOnCustomer,
        },
        State {
            name: "on_hold",
            category: Category::WaitingInternally,
        },
        State {
            name: "resolved",
            category: Category::Resolved,
        },
        State {
            name: "closed",
            category: Category::Closed,
        },
        State {
            name: "cancelled",
            category: Category::Cancelled,
        },
    ],
    resolution_codes: &[
        "solved",
        "solved_with_workaround",
        "information_provided",
        "not_solved",
        "duplicate",
        "no_response",
        "withdrawn",
        "spam",
    ],
    verbs: &[
        Verb {
            name: Verb::BEGIN,
            from: &["new"],
            to: "open",
        },
        Verb {
            name: Verb::ANSWERED,
            from: &["awaiting_info"],
            to: "open",
        },
        Verb {
            name: Verb::HOLD_FOR_CUSTOMER,
            from: UNRESOLVED,
            to: "awaiting_info",
        },
        Verb {
            name: Verb::HOLD_INTERNALLY,
            from: UNRESOLVED,
            to: "on_hold",
        },
        Verb {
            name: Verb::RESOLVE,
            from: UNRESOLVED,
            to: "resolved",
        },
        Verb {
            name: Verb::REOPEN,
            from: &["awaiting_info", "on_hold", "resolved"],
            to: "open",
        },
        Verb {
            name: Verb::CLOSE,
            from: &["new", "open", "awaiting_info", "on_hold", "resolved"],
            to: "closed",
        },
        Verb {
            name: Verb::CANCEL,
            from: UNRESOLVED,
            to: "cancelled",
        },
    ],
};

/// Whatever is still to be solved.
const UNRESOLVED: &[&str] = &["new", "open", "awaiting_info", "on_hold"];
