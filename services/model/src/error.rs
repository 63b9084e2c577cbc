//! Why a command was refused; and errors of others, in words.

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

/// An error and its causes in one line. Some repeat their cause in their own words.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Caused(&'static str, #[source] Option<Box<Caused>>);

    #[test]
    fn a_chain_names_every_cause_once() {
        let check = |causes: &[&'static str], expected: &str| {
            let caused = |source, text: &&'static str| Some(Box::new(Caused(text, source)));
            let error = causes.iter().rev().fold(None, caused).unwrap();
            assert_eq!(chain(&*error), expected);
        };
        check(&["away"], "away");
        check(
            &["sending", "no connection", "broken pipe"],
            "sending: no connection: broken pipe",
        );
        check(
            &["sending: broken pipe", "broken pipe", "errno 32"],
            "sending: broken pipe: errno 32",
        );
    }
}
