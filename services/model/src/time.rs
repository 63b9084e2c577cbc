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
    /// The year 1, and 9999-12-30T21:59:59.999Z, the latest that jiff takes: all
    /// between them can be shown in RFC 3339; others are clamped.
    const RANGE_MS: (i64, i64) = (-62_135_596_800_000, 253_402_207_199_999);

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn what_is_shown_is_what_is_read(ms: i64, more: i64) {
            let moment = Moment::from_ms(ms);
            prop_assert_eq!(Moment::parse(&moment.to_string()), Some(moment));
            let later = moment.plus_ms(more);
            let is_clamped = later.as_ms() != moment.as_ms().saturating_add(more);
            prop_assert!(is_clamped || later.since_ms(moment) == more);
        }
    }

    #[test]
    fn shows_milliseconds_in_utc() {
        let check = |ms: i64, text: &str| {
            let moment = Moment::from_ms(ms);
            assert_eq!(moment.to_string(), text);
            assert_eq!(Moment::parse(text), Some(moment));
            assert_eq!(serde_json::to_value(moment).unwrap(), text);
            assert_eq!(serde_json::from_value::<Moment>(text.into()).unwrap(), moment);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(-1, "1969-12-31T23:59:59.999Z");
        check(1_795_508_679_042, "2026-11-24T08:24:39.042Z");
        check(i64::MIN, "0001-01-01T00:00:00.000Z");
        check(i64::MAX, "9999-12-30T21:59:59.999Z");
    }

    #[test]
    fn takes_any_offset_and_nothing_vague() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(Moment::parse(text).map(Moment::as_ms), expected, "{text}");
        };
        check("1970-01-01T01:00:00+01:00", Some(0));
        check("1969-12-31T19:00:00-05:00", Some(0));
        check("1970-01-01T00:00:00.0019Z", Some(1));
        check("1970-01-01T00:00:00z", Some(0));
        check("1970-01-01 00:00:00Z", Some(0));
        check("1970-01-01T00:00:00", None);
        check("1970-01-01", None);
        check("yesterday", None);
        check("", None);
        check("99999-01-01T00:00:00Z", None);
    }

    #[test]
    fn arithmetic_never_overflows() {
        let (first, last) = (Moment::from_ms(i64::MIN), Moment::from_ms(i64::MAX));
        assert_eq!(last.plus_ms(i64::MAX), last);
        assert_eq!(first.plus_ms(i64::MIN), first);
        assert_eq!(last.since_ms(first), -first.since_ms(last));
        assert_eq!(Moment::from_ms(5).since_ms(Moment::from_ms(7)), -2);
        assert_eq!(Moment::from(last.to_jiff()), last);
        assert_eq!(Moment::from(first.to_jiff()), first);
    }

    #[test]
    fn comes_from_the_system_time() {
        let epoch = std::time::UNIX_EPOCH;
        let second = std::time::Duration::from_secs(1);
        assert_eq!(Moment::from(epoch + second), Moment::from_ms(1_000));
        assert_eq!(Moment::from(epoch - second), Moment::from_ms(-1_000));
    }
}
