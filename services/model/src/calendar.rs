//! Business time: several ranges a day, a time zone, holidays, daylight saving.
//!
//! A moment is business time if the wall clock of the zone then shows a time within
//! a range of that day, and the day is no holiday. So a night in which the clock is
//! put forward has an hour less, and one in which it is put back an hour more.
//!
//! [`Calendar`] is what settings declare; [`BusinessTime`] is what counts. The zones
//! are those built into the executable, so that every replica counts alike.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZoneDatabase;
use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// When the desk works. As settings declare it: `hours.mon = ["08:00-12:00", "13:00-17:00"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    pub name: String,
    /// IANA name.
    pub time_zone: String,
    /// By day, `mon` to `sun`. A range ends on its own day, at the latest at `24:00`:
    /// a night is written as two ranges, one on each day.
    pub hours: BTreeMap<String, Vec<String>>,
    /// Dates (`2026-12-25`) without business hours.
    #[serde(default)]
    pub holidays: Vec<String>,
}

/// A calendar, ready to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusinessTime {
    /// From when on (milliseconds since the epoch) the zone is how many milliseconds
    /// ahead of UTC. The first entry holds from the beginning of time.
    offsets: Vec<(i64, i64)>,
    /// From Monday; milliseconds of the day, in order and without overlap.
    week: [Vec<(i64, i64)>; 7],
    /// Days since 1970-01-01, in order.
    holidays: Vec<i64>,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MS: i64 = 86_400_000;
/// 1970-01-01 and 2100-01-01: changes of the clock are known between them. Outside,
/// the nearest offset holds.
const KNOWN_MS: (i64, i64) = (0, 4_102_444_800_000);
const MAX_RANGES_A_DAY: usize = 48;
const MAX_HOLIDAYS: usize = 5_000;

impl Calendar {
    /// Makes it ready to count, or says all that is wrong with it.
    pub fn compile(&self) -> Result<BusinessTime, Vec<String>> {
        let mut errors = Vec::new();
        let offsets = offsets_of(&self.time_zone).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let week = self.week(&mut errors);
        let holidays = self.holiday_numbers(&mut errors);
        if errors.is_empty() && week.iter().all(Vec::is_empty) {
            errors.push("no business hours in the whole week".to_owned());
        }
        if errors.is_empty() {
            return Ok(BusinessTime {
                offsets,
                week,
                holidays,
            });
        }
        let name = &self.name;
        Err(errors
            .into_iter()
            .map(|error| format!("calendar `{name}`: {error}"))
            .collect())
    }

    fn week(&self, errors: &mut Vec<String>) -> [Vec<(i64, i64)>; 7] {
        let mut week: [Vec<(i64, i64)>; 7] = Default::default();
        for (day, texts) in &self.hours {
            let Some(index) = DAYS.iter().position(|known| known == day) else {
                errors.push(format!("unknown day `{day}`; days are {}", DAYS.join(", ")));
                continue;
            };
            if texts.len() > MAX_RANGES_A_DAY {
                errors.push(format!("more than {MAX_RANGES_A_DAY} ranges on {day}"));
                continue;
            }
            for text in texts {
                match parse_range(text) {
                    Ok(range) => week[index].push(range),
                    Err(error) => errors.push(format!("{day}: {error}")),
                }
            }
            week[index].sort_unstable();
            if week[index].windows(2).any(|pair| pair[1].0 < pair[0].1) {
                errors.push(format!("the ranges on {day} overlap"));
            }
        }
        week
    }

    fn holiday_numbers(&self, errors: &mut Vec<String>) -> Vec<i64> {
        if self.holidays.len() > MAX_HOLIDAYS {
            errors.push(format!("more than {MAX_HOLIDAYS} holidays"));
            return Vec::new();
        }
        let mut numbers = Vec::new();
        for text in &self.holidays {
            match parse_date(text) {
                Some(date) => numbers.push(day_number(date)),
                None => errors.push(format!("holiday `{text}` is no date like 2026-12-25")),
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

impl BusinessTime {
    /// How far ahead it looks, about ten years: no clock ends later.
    pub const HORIZON_MS: i64 = 3_653 * DAY_MS;

    /// The earliest moment at which `ms` of business time have passed since `from`;
    /// `from` itself if `ms` is not positive, the horizon if they are not found before.
    pub fn add(&self, from: Moment, ms: i64) -> Moment {
        if ms <= 0 {
            return from;
        }
        let horizon = from.plus_ms(Self::HORIZON_MS);
        let mut left = ms;
        for (start, end) in self.open_ranges(from, horizon) {
            if left <= end - start {
                return Moment::from_ms(start + left);
            }
            left -= end - start;
        }
        horizon
    }

    /// Business time between two moments, in milliseconds; 0 if `to` is not after
    /// `from`. What lies beyond the horizon of `from` is not counted.
    pub fn between_ms(&self, from: Moment, to: Moment) -> i64 {
        let until = to.min(from.plus_ms(Self::HORIZON_MS));
        self.open_ranges(from, until).map(|(start, end)| end - start).sum()
    }

    /// The business hours between two moments, in order, in milliseconds since the
    /// epoch. While the offset stays the same, local time is plain arithmetic.
    fn open_ranges(&self, from: Moment, until: Moment) -> impl Iterator<Item = (i64, i64)> {
        self.stretches(from.as_ms(), until.as_ms())
            .flat_map(move |(start, end, offset)| {
                let first_day = (start + offset).div_euclid(DAY_MS);
                let last_day = (end - 1 + offset).div_euclid(DAY_MS);
                (first_day..=last_day).flat_map(move |day| {
                    let midnight = day * DAY_MS - offset;
                    self.ranges_of(day)
                        .iter()
                        .map(move |range| ((midnight + range.0).max(start), (midnight + range.1).min(end)))
                })
            })
            .filter(|(start, end)| start < end)
    }

    /// Cuts the time between two moments where the offset changes: start, end, offset.
    fn stretches(&self, from: i64, until: i64) -> impl Iterator<Item = (i64, i64, i64)> {
        let first = self
            .offsets
            .partition_point(|(since, _)| *since <= from)
            .saturating_sub(1);
        let ends = self.offsets[first..]
            .iter()
            .skip(1)
            .map(|(since, _)| *since)
            .chain([i64::MAX]);
        self.offsets[first..]
            .iter()
            .zip(ends)
            .map(move |((since, offset), end)| ((*since).max(from), end.min(until), *offset))
            .take_while(move |(start, end, _)| start < end)
    }

    fn ranges_of(&self, day: i64) -> &[(i64, i64)] {
        if self.holidays.binary_search(&day).is_ok() {
            return &[];
        }
        // 1970-01-01, day 0, was a Thursday.
        let weekday = usize::try_from((day + 3).rem_euclid(7)).unwrap_or_default();
        &self.week[weekday]
    }
}

fn offsets_of(time_zone: &str) -> Result<Vec<(i64, i64)>, String> {
    let zone = TimeZoneDatabase::bundled()
        .get(time_zone)
        .map_err(|_| format!("unknown time zone `{time_zone}`; use an IANA name such as Europe/Berlin"))?;
    let start = Moment::from_ms(KNOWN_MS.0).to_jiff();
    let end = Moment::from_ms(KNOWN_MS.1).to_jiff();
    let mut offsets = vec![(i64::MIN, i64::from(zone.to_offset(start).seconds()) * 1_000)];
    for change in zone.following(start).take_while(|change| change.timestamp() < end) {
        let since = change.timestamp().as_millisecond();
        offsets.push((since, i64::from(change.offset().seconds()) * 1_000));
    }
    Ok(offsets)
}

/// `08:00-12:00` as milliseconds of the day.
fn parse_range(text: &str) -> Result<(i64, i64), String> {
    let range = text
        .split_once('-')
        .and_then(|(start, end)| Some((parse_time(start)?, parse_time(end)?)));
    let Some((start, end)) = range else {
        return Err(format!("`{text}` is no range like 08:00-12:00"));
    };
    if start == end {
        return Err(format!("`{text}` is empty"));
    }
    if start > end {
        return Err(format!(
            "`{text}` ends before it begins; write a night as two ranges, until 24:00 and from 00:00 on the next day"
        ));
    }
    Ok((start, end))
}

/// `08:00`, up to `24:00`, as milliseconds of the day.
fn parse_time(text: &str) -> Option<i64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let is_plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(hours) || !is_plain(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let is_time = hours < 24 && minutes < 60 || hours == 24 && minutes == 0;
    is_time.then_some((hours * 60 + minutes) * 60_000)
}

fn parse_date(text: &str) -> Option<Date> {
    let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if !is_plain {
        return None;
    }
    text.parse().ok()
}

fn day_number(date: Date) -> i64 {
    let epoch = jiff::civil::date(1970, 1, 1);
    i64::from(date.since(epoch).map(|span| span.get_days()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
