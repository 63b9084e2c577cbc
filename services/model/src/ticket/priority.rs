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
