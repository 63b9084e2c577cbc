//! Priority from impact × urgency (ITIL; the 3×3 matrix).

use serde::{Deserialize, Serialize};

/// Impact or urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    High,
    Medium,
    Low,
}

/// 1 Critical to 5 Planning. JSON shows the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// The matrix.
    pub fn of(impact: Level, urgency: Level) -> Self {
        Self(impact as u8 + urgency as u8 + 1)
    }

    /// 1 to 5.
    pub fn number(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrix() {
        let check = |impact: Level, expected: [u8; 3]| {
            let row = [Level::High, Level::Medium, Level::Low].map(|urgency| Priority::of(impact, urgency).number());
            assert_eq!(row, expected, "{impact:?}");
        };
        check(Level::High, [1, 2, 3]);
        check(Level::Medium, [2, 3, 4]);
        check(Level::Low, [3, 4, 5]);
    }

    #[test]
    fn json_shows_names_and_numbers() {
        let check = |level: Level, name: &str| {
            assert_eq!(serde_json::to_value(level).unwrap(), name);
            assert_eq!(serde_json::from_value::<Level>(name.into()).unwrap(), level);
        };
        check(Level::High, "high");
        check(Level::Medium, "medium");
        check(Level::Low, "low");
        assert_eq!(serde_json::to_value(Priority::of(Level::Low, Level::Low)).unwrap(), 5);
        assert!(serde_json::from_value::<Level>("urgent".into()).is_err());
    }
}
