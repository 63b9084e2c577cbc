use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const HOUR_MS: i64 = 3_600_000;

fn calendar(time_zone: &str, hours: &[(&str, &[&str])], holidays: &[&str]) -> Calendar {
    Calendar {
        name: "office".to_owned(),
        time_zone: time_zone.to_owned(),
        hours: hours
            .iter()
            .map(|(day, ranges)| {
                (
                    (*day).to_owned(),
                    ranges.iter().map(|range| (*range).to_owned()).collect(),
                )
            })
            .collect(),
        holidays: holidays.iter().map(|date| (*date).to_owned()).collect(),
    }
}

fn office(time_zone: &str) -> BusinessTime {
    let day: &[&str] = &["08:00-12:00", "13:00-17:00"];
    let hours = [("mon", day), ("tue", day), ("wed", day), ("thu", day), ("fri", day)];
    calendar(time_zone, &hours, &["2026-12-25", "2026-12-28"])
        .compile()
        .unwrap()
}

fn around_the_clock(time_zone: &str) -> BusinessTime {
    let all: &[&str] = &["00:00-24:00"];
    let hours: Vec<_> = DAYS.iter().map(|day| (*day, all)).collect();
    calendar(time_zone, &hours, &[]).compile().unwrap()
}

fn at(text: &str) -> Moment {
    Moment::parse(text).unwrap()
}

#[test]
fn adds_business_time() {
    let office = office("Europe/Berlin");
    let check = |from: &str, ms: i64, expected: &str| {
        assert_eq!(office.add(at(from), ms), at(expected), "{from} and {ms} ms");
        if ms > 0 {
            assert_eq!(office.between_ms(at(from), at(expected)), ms, "{from} and {ms} ms");
        }
    };
    // Tuesday, 24 November 2026, at 09:00 in Berlin.
    check("2026-11-24T09:00:00+01:00", HOUR_MS, "2026-11-24T10:00:00+01:00");
    check("2026-11-24T09:00:00+01:00", 0, "2026-11-24T09:00:00+01:00");
    check("2026-11-24T09:00:00+01:00", -5, "2026-11-24T09:00:00+01:00");
    check("2026-11-24T03:00:00+01:00", 0, "2026-11-24T03:00:00+01:00");
    check("2026-11-24T03:00:00+01:00", 1, "2026-11-24T08:00:00.001+01:00");
    // Until the very end of a range, and over the lunch break.
    check("2026-11-24T09:00:00+01:00", 3 * HOUR_MS, "2026-11-24T12:00:00+01:00");
    check(
        "2026-11-24T09:00:00+01:00",
        3 * HOUR_MS + 1,
        "2026-11-24T13:00:00.001+01:00",
    );
    check("2026-11-24T12:30:00+01:00", HOUR_MS, "2026-11-24T14:00:00+01:00");
    // Over a night, a weekend, and Christmas with the Monday after it.
    check("2026-11-24T16:00:00+01:00", 2 * HOUR_MS, "2026-11-25T09:00:00+01:00");
    check("2026-11-27T16:00:00+01:00", 2 * HOUR_MS, "2026-11-30T09:00:00+01:00");
    check("2026-12-24T16:30:00+01:00", HOUR_MS, "2026-12-29T08:30:00+01:00");
    // Forty hours are a working week, over the spring change too.
    check("2026-03-23T08:00:00+01:00", 40 * HOUR_MS, "2026-03-27T17:00:00+01:00");
    check("2026-03-26T16:00:00+01:00", 10 * HOUR_MS, "2026-03-30T09:00:00+02:00");
}

#[test]
fn counts_business_time() {
    let office = office("Europe/Berlin");
    let check = |from: &str, to: &str, hours: i64| {
        assert_eq!(office.between_ms(at(from), at(to)), hours * HOUR_MS, "{from} to {to}");
    };
    check("2026-11-24T09:00:00+01:00", "2026-11-24T09:00:00+01:00", 0);
    check("2026-11-24T10:00:00+01:00", "2026-11-24T09:00:00+01:00", 0);
    check("2026-11-24T11:00:00+01:00", "2026-11-24T14:00:00+01:00", 2);
    check("2026-11-23T00:00:00+01:00", "2026-11-30T00:00:00+01:00", 40);
    check("2026-12-25T00:00:00+01:00", "2026-12-29T00:00:00+01:00", 0);
    // The office of New York opens when Berlin has long been at work.
    assert_eq!(
        self::office("America/New_York").between_ms(at("2026-11-24T08:00:00+01:00"), at("2026-11-24T15:00:00+01:00")),
        HOUR_MS
    );
}

#[test]
fn nights_of_the_clock_change_have_an_hour_less_or_more() {
    let night: &[&str] = &["00:00-06:00"];
    let check = |time_zone: &str, from: &str, to: &str, minutes: i64| {
        let nights: Vec<_> = DAYS.iter().map(|day| (*day, night)).collect();
        let time = calendar(time_zone, &nights, &[]).compile().unwrap();
        assert_eq!(
            time.between_ms(at(from), at(to)),
            minutes * 60_000,
            "{time_zone} {from}"
        );
    };
    check("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", 300);
    check("Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", 420);
    check("Europe/Berlin", "2026-06-24T12:00:00Z", "2026-06-25T12:00:00Z", 360);
    check("America/New_York", "2026-03-07T18:00:00Z", "2026-03-08T18:00:00Z", 300);
    // Half an hour, on the southern side of the year.
    check(
        "Australia/Lord_Howe",
        "2026-04-04T02:00:00Z",
        "2026-04-05T02:00:00Z",
        390,
    );
    check(
        "Australia/Lord_Howe",
        "2026-10-03T02:00:00Z",
        "2026-10-04T02:00:00Z",
        330,
    );
    // A day of 23 and of 25 hours around the clock.
    let all = around_the_clock("Europe/Berlin");
    let day = |from: &str, to: &str| all.between_ms(at(from), at(to)) / HOUR_MS;
    assert_eq!(day("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"), 23);
    assert_eq!(day("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"), 25);
    // An hour that the clock shows twice counts twice; one that it skips, never.
    let twice = calendar("Europe/Berlin", &[("sun", &["02:00-03:00"])], &[])
        .compile()
        .unwrap();
    let sunday = |from: &str, to: &str| twice.between_ms(at(from), at(to)) / HOUR_MS;
    assert_eq!(sunday("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"), 2);
    assert_eq!(sunday("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), 0);
    // Samoa had no 30 December 2011.
    let samoa = around_the_clock("Pacific/Apia");
    assert_eq!(
        samoa.between_ms(at("2011-12-29T00:00:00-10:00"), at("2012-01-01T00:00:00+14:00")),
        48 * HOUR_MS
    );
}

#[test]
fn the_far_future_and_the_far_past_end() {
    let office = office("Europe/Berlin");
    let horizon = |from: Moment| from.plus_ms(BusinessTime::HORIZON_MS);
    for from in [
        at("2026-11-24T09:00:00Z"),
        at("0001-01-01T00:00:00Z"),
        at("9999-12-30T21:59:59Z"),
        at("2099-12-31T23:00:00Z"),
        at("1969-12-31T23:00:00Z"),
    ] {
        assert_eq!(office.add(from, i64::MAX), horizon(from));
        let all = office.between_ms(from, horizon(from));
        assert_eq!(office.between_ms(from, Moment::from_ms(i64::MAX)), all);
    }
    assert_eq!(
        office.add(at("2200-01-01T09:00:00Z"), HOUR_MS),
        at("2200-01-01T10:00:00Z"),
        "the last offset holds on"
    );
}

#[test]
fn says_what_is_wrong() {
    let check = |calendar: Calendar, expected: &str| {
        let errors = calendar.compile().unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
        assert!(errors[0].starts_with("calendar `office`: "), "{errors:?}");
    };
    let zone = "Europe/Berlin";
    let with = |ranges: &[&str]| calendar(zone, &[("mon", ranges)], &[]);
    let fine: &[&str] = &["08:00-17:00"];
    check(calendar("Europe/Bärlin", &[("mon", fine)], &[]), "unknown time zone");
    check(calendar("", &[("mon", fine)], &[]), "unknown time zone");
    check(calendar("../../etc/passwd", &[("mon", fine)], &[]), "unknown time zone");
    check(
        calendar(zone, &[("mon", fine), ("Monday", fine)], &[]),
        "unknown day `Monday`",
    );
    check(calendar(zone, &[], &[]), "no business hours");
    check(with(&[]), "no business hours");
    check(with(&["08:00-08:00"]), "is empty");
    check(with(&["22:00-06:00"]), "two ranges");
    check(with(&["24:00-24:00"]), "is empty");
    check(with(&["08:00-12:00", "11:59-13:00"]), "overlap");
    check(with(&["08:00-12:00", "08:00-12:00"]), "overlap");
    check(with(&["08:00-12:00"; 49]), "more than 48 ranges");
    for text in [
        "",
        "-",
        "8-17",
        "8:00-17:00",
        "08:00",
        "08:00-",
        "08:00-24:01",
        "08:00-25:00",
        "08:60-09:00",
        "08:00-17:00-18:00",
        "+8:00-17:00",
        "٠٨:00-17:00",
    ] {
        check(with(&[text]), "is no range");
    }
    for date in [
        "",
        "2026-02-30",
        "2026-13-01",
        "26-12-25",
        "25.12.2026",
        "2026-12-25T00:00",
        "20261225",
    ] {
        check(calendar(zone, &[("mon", fine)], &[date]), "is no date");
    }
    let many = calendar("Nowhere", &[("mon", &["x", "9:00"]), ("foo", fine)], &["y"]);
    assert_eq!(many.compile().unwrap_err().len(), 5);
}

#[test]
fn ranges_may_touch_and_stand_in_any_order() {
    let zone = "Europe/Berlin";
    let touching = calendar(zone, &[("mon", &["12:00-17:00", " 08:00 - 12:00 "])], &[]);
    let whole = calendar(zone, &[("mon", &["08:00-17:00"]), ("tue", &[])], &[]);
    let (from, to) = (at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
    assert_eq!(
        touching.compile().unwrap().between_ms(from, to),
        whole.compile().unwrap().between_ms(from, to)
    );
}

/// Business time the slow way: what does the clock on the wall show, each minute?
fn count_minutes(calendar: &Calendar, from: Moment, minutes: i64) -> i64 {
    let zone = TimeZone::get(&calendar.time_zone).unwrap();
    let mut count = 0;
    for minute in 0..minutes {
        let local = zone.to_datetime(from.plus_ms(minute * 60_000).to_jiff());
        let day = DAYS[usize::try_from(local.weekday().to_monday_zero_offset()).unwrap()];
        let shows = format!("{:02}:{:02}", local.hour(), local.minute());
        let is_holiday = calendar.holidays.contains(&local.date().to_string());
        let is_open = calendar.hours.get(day).is_some_and(|ranges| {
            ranges.iter().any(|range| {
                let (start, end) = range.split_once('-').unwrap();
                start <= shows.as_str() && shows.as_str() < end
            })
        });
        count += i64::from(is_open && !is_holiday);
    }
    count
}

fn any_day() -> impl Strategy<Value = Vec<String>> {
    // Any even number of different minutes, in order, are ranges without overlap.
    proptest::collection::btree_set(0..=1440_u32, 0..=6).prop_map(|minutes| {
        let minutes: Vec<_> = minutes.into_iter().collect();
        let text = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let pairs = minutes.chunks_exact(2);
        pairs
            .map(|pair| format!("{}-{}", text(pair[0]), text(pair[1])))
            .collect()
    })
}

/// Zones, and days near which their clocks change (or, in Samoa, a day is left out).
const CHANGES: [(&str, &str); 10] = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2027-03-14"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Asia/Kathmandu", "2026-06-01"),
    ("Pacific/Apia", "2011-12-30"),
    ("Africa/Casablanca", "2026-02-15"),
    ("America/St_Johns", "2026-11-01"),
    ("UTC", "2026-12-31"),
];

prop_compose! {
    fn any_calendar()(
        (time_zone, date) in proptest::sample::select(&CHANGES[..]),
        days in proptest::collection::vec(any_day(), 7),
        holidays in proptest::collection::vec(-4..5_i64, 0..3),
        before_minutes in 0..5_000_i64,
    ) -> (Calendar, Moment) {
        let near: Date = date.parse().unwrap();
        let day = |offset: i64| near.saturating_add(jiff::Span::new().days(offset)).to_string();
        let calendar = Calendar {
            name: "any".to_owned(),
            time_zone: time_zone.to_owned(),
            hours: DAYS.iter().map(|day| (*day).to_owned()).zip(days).collect(),
            holidays: holidays.into_iter().map(day).collect(),
        };
        let near = Moment::parse(&format!("{date}T00:00:00Z")).unwrap();
        (calendar, near.plus_ms(-before_minutes * 60_000))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn counts_as_the_clock_on_the_wall_shows((calendar, from) in any_calendar(), minutes in 0..9_000_i64) {
        let Ok(time) = calendar.compile() else {
            prop_assert!(calendar.hours.values().all(Vec::is_empty));
            return Ok(());
        };
        let expected = count_minutes(&calendar, from, minutes) * 60_000;
        prop_assert_eq!(time.between_ms(from, from.plus_ms(minutes * 60_000)), expected);
    }

    #[test]
    fn adding_is_the_inverse_of_counting(
        (calendar, from) in any_calendar(),
        from_ms in 0..60_000_i64,
        ms in 1..1_000_000_000_i64,
    ) {
        let Ok(time) = calendar.compile() else { return Ok(()) };
        let from = from.plus_ms(from_ms);
        let to = time.add(from, ms);
        prop_assume!(to < from.plus_ms(BusinessTime::HORIZON_MS));
        prop_assert_eq!(time.between_ms(from, to), ms);
        // It is the earliest such moment.
        prop_assert_eq!(time.between_ms(from, to.plus_ms(-1)), ms - 1);
    }

    #[test]
    fn counting_adds_up((calendar, from) in any_calendar(), first in 0..600_000_000_i64, second in 0..600_000_000_i64) {
        let Ok(time) = calendar.compile() else { return Ok(()) };
        let (middle, end) = (from.plus_ms(first), from.plus_ms(first + second));
        let halves = time.between_ms(from, middle) + time.between_ms(middle, end);
        prop_assert_eq!(time.between_ms(from, end), halves);
    }
}
