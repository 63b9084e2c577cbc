//! ITIL incidents.

use super::Category;
use super::kind::{Kind, State, Verb};

/// An incident.
pub const INCIDENT: Kind = Kind {
    name: "incident",
    prefix: "INC",
    states: &[
        State {
            name: "new",
            category: Category::Open,
        },
        State {
            name: "in_progress",
            category: Category::Open,
        },
        State {
            name: "awaiting_caller",
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
        "solved_permanently",
        "solved_with_workaround",
        "solved_by_change",
        "solved_by_caller",
        "not_reproducible",
        "no_fault_found",
        "duplicate",
        "no_response",
        "withdrawn",
    ],
    verbs: &[
        Verb {
            name: Verb::BEGIN,
            from: &["new"],
            to: "in_progress",
        },
        Verb {
            name: Verb::ANSWERED,
            from: &["awaiting_caller"],
            to: "in_progress",
        },
        Verb {
            name: Verb::HOLD_FOR_CUSTOMER,
            from: UNRESOLVED,
            to: "awaiting_caller",
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
            from: &["awaiting_caller", "on_hold", "resolved"],
            to: "in_progress",
        },
        Verb {
            name: Verb::CLOSE,
            from: &["new", "in_progress", "awaiting_caller", "on_hold", "resolved"],
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
const UNRESOLVED: &[&str] = &["new", "in_progress", "awaiting_caller", "on_hold"];
