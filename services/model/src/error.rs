//! Why a command was refused.

/// A command that the present state does not allow, or that lacks something. It
/// says what would be allowed; the API shows it as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// Short and stable, for programs: `wrong_state`, `missing_field`, ….
    pub code: &'static str,
    /// One sentence for people: what is wrong, and what would be allowed.
    pub detail: String,
}

impl Refusal {
    /// The verb does not fit the ticket's state.
    pub fn wrong_state(detail: impl Into<String>) -> Self {
        Self {
            code: "wrong_state",
            detail: detail.into(),
        }
    }

    /// Something that the verb needs was not given, or has an unknown value.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self {
            code: "invalid",
            detail: detail.into(),
        }
    }
}
