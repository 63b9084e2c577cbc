//! Moments: milliseconds since 1970-01-01 UTC.
//!
//! This is the one module that converts between jiff, the store's BIGINT and
//! the RFC 3339 text of the API. A length of time is a [`std::time::Duration`],
//! or milliseconds where the name ends in `_ms`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment with the precision of a millisecond. JSON shows it in RFC 3339, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// Earliest and latest moments that RFC 3339 can show; others are clamped.
    const RANGE_MS: (i64, i64) = (-62_135_596_800_000, 253_402_300_799_999);

    /// From milliseconds since the epoch, as the store and the wire keep them.
    pub fn from_ms(ms: i64) -> Self {
        Self(ms.clamp(Self::RANGE_MS.0, Self::RANGE_MS.1))
    }

    /// Milliseconds since the epoch.
    pub fn as_ms(self) -> i64 {
        self.0
    }

    /// RFC 3339 text; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let timestamp: jiff::Timestamp = text.parse().ok()?;
        Some(Self::from_ms(timestamp.as_millisecond()))
    }

    /// This moment and `ms` more (less, if negative).
    pub fn plus_ms(self, ms: i64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; negative if it lies later.
    pub fn since_ms(self, earlier: Moment) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// For calendar arithmetic.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl From<std::time::SystemTime> for Moment {
    fn from(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self::from_ms(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Self::from_ms(-i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

impl From<jiff::Timestamp> for Moment {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self::from_ms(timestamp.as_millisecond())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}", self.to_jiff())
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Moment::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 moment"))
    }
}
