//! Business time: several ranges a day, a time zone, holidays, daylight saving.

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// When the desk works. As settings declare it: `hours.mon = ["08:00-12:00", "13:00-17:00"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    pub name: String,
    /// IANA name.
    pub time_zone: String,
    pub hours: std::collections::BTreeMap<String, Vec<String>>,
    /// Dates (`2026-12-25`) without business hours.
    #[serde(default)]
    pub holidays: Vec<String>,
}

impl Calendar {
    /// Says what is wrong with it, before anything uses it.
    pub fn validate(&self) -> Result<(), String> {
        unimplemented!()
    }

    /// The moment at which `ms` of business time have passed since `from`.
    pub fn add(&self, from: Moment, ms: i64) -> Moment {
        unimplemented!("{from} {ms}")
    }

    /// Business time between two moments, in milliseconds; 0 if `to` is not after `from`.
    pub fn between_ms(&self, from: Moment, to: Moment) -> i64 {
        unimplemented!("{from} {to}")
    }
}
