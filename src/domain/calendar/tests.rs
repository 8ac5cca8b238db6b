//! Tests of the calendar.

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn calendar(zone: &str) -> Calendar {
    Calendar::new(zone.parse().unwrap())
}

#[test]
fn a_period_ends_when_the_next_month_begins() {
    let cases = [
        ("UTC", "2026-11-23T12:00:00Z", 202_611, "2026-12-01T00:00:00Z"),
        ("UTC", "2026-12-31T23:59:59.999Z", 202_612, "2027-01-01T00:00:00Z"),
        ("UTC", "2027-01-01T00:00:00Z", 202_701, "2027-02-01T00:00:00Z"),
        ("UTC", "2028-02-29T12:00:00Z", 202_802, "2028-03-01T00:00:00Z"),
        ("UTC", "2027-02-28T23:59:59Z", 202_702, "2027-03-01T00:00:00Z"),
        ("Asia/Shanghai", "2026-11-30T16:00:00Z", 202_612, "2026-12-31T16:00:00Z"),
        ("Asia/Shanghai", "2026-11-30T15:59:59Z", 202_611, "2026-11-30T16:00:00Z"),
        ("America/New_York", "2026-11-01T03:59:59Z", 202_610, "2026-11-01T04:00:00Z"),
        ("America/New_York", "2026-11-01T04:00:00Z", 202_611, "2026-12-01T05:00:00Z"),
    ];
    for (zone, at, period, end) in cases {
        let calendar = calendar(zone);
        assert_eq!(calendar.month_at(utc(at)).id(), period, "{zone} {at}");
        let period = Period::from_id(period).unwrap();
        assert_eq!(calendar.period_end(period, AnchorDay::FIRST), utc(end), "{zone} {at}");
    }
}

#[test]
fn a_day_begins_after_a_jump_over_midnight() {
    // Lebanon moves its clocks at midnight: 2026-03-29 begins at 01:00 local time.
    let beirut = calendar("Asia/Beirut");
    let day = beirut.day_at(utc("2026-03-29T12:00:00Z"));
    assert_eq!(beirut.day_start(day), utc("2026-03-28T22:00:00Z"));
    assert_eq!(beirut.day_at(beirut.day_start(day)), day);
}

#[test]
fn bounds_cover_every_instant_within_the_allowed_skew() {
    for zone in ["UTC", "Asia/Shanghai", "America/New_York"] {
        let calendar = calendar(zone);
        for end in ["2026-11-30T23:59:30Z", "2026-12-01T00:00:00Z", "2026-12-31T16:00:40Z", "2028-03-01T05:00:00Z"] {
            let now = utc(end);
            let bounds = calendar.bounds_at(now);
            for offset in [-60_000, -1, 0, 1, 60_000] {
                let redis = now + TimeDelta::milliseconds(offset);
                let is_next = redis >= bounds.day_end;
                let day = Day(bounds.day.0 + u16::from(is_next));
                let begins_month = is_next && bounds.day_of_month == bounds.month_lengths[1];
                let month = if begins_month { bounds.next_month } else { bounds.month };
                assert_eq!((month, day), (calendar.month_at(redis), calendar.day_at(redis)), "{zone} {redis}");
            }
        }
    }
}

fn date(text: &str) -> Day {
    Day::of(text.parse().unwrap())
}

#[test]
fn a_period_has_one_number_in_each_form() {
    for (id, text, first) in [(202_612, "2026-12", "2026-12-01"), (20_261_117, "2026-11-17", "2026-11-17")] {
        let period = Period::from_id(id).unwrap();
        assert_eq!((period.id(), period.to_string()), (id, text.to_owned()));
        assert_eq!(period, Period::beginning_on(date(first)));
    }
    for id in [0, 202_600, 202_613, 196_912, 1_000_001, 20_261_101, 20_261_131, 20_260_229] {
        assert!(Period::from_id(id).is_err(), "{id}");
    }
    let (month, other) = (Period::from_id(202_611).unwrap(), Period::from_id(20_261_117).unwrap());
    let fifteen = AnchorDay::new(15).unwrap();
    assert_eq!(month.code(AnchorDay::FIRST), 202_611);
    assert_eq!(other.code(fifteen), (1 << 23) + (15 << 16) + 20_774);
    for (period, anchor_day) in
        [(month, AnchorDay::FIRST), (month, fifteen), (other, AnchorDay::FIRST), (other, AnchorDay::new(31).unwrap())]
    {
        let code = period.code(anchor_day);
        assert_eq!(Period::from_code(code), Ok((period, anchor_day)));
        assert!(code < 1 << 24);
    }
    assert!(Period::from_code(1 << 23).is_err() && Period::from_code(999_999).is_err());
    assert!(month < other && other < Period::from_id(202_612).unwrap());
    assert!(AnchorDay::new(0).is_err() && AnchorDay::new(32).is_err());
}

#[test]
fn a_period_ends_at_its_anchor_date_clamped_to_the_month() {
    for (first, anchor_day, next) in [
        ("2026-12-01", 1, "2027-01-01"),
        ("2027-01-31", 31, "2027-02-28"),
        ("2028-01-31", 31, "2028-02-29"),
        ("2027-02-28", 31, "2027-03-31"),
        ("2026-11-28", 28, "2026-12-28"),
        // After a change of anchor day.
        ("2026-11-01", 28, "2026-12-28"),
        ("2026-11-28", 1, "2027-01-01"),
        ("2027-02-01", 1, "2027-03-01"),
        ("2027-01-03", 31, "2027-01-31"),
    ] {
        let anchor_day = AnchorDay::new(anchor_day).unwrap();
        let (first, next) = (Period::beginning_on(date(first)), Period::beginning_on(date(next)));
        assert_eq!(first.next(anchor_day), next, "{first} {anchor_day}");
        assert_eq!(first.at(Day(Day::of(next.0).0 - 1), anchor_day), first, "{first} {anchor_day}");
        assert_eq!(first.at(Day::of(next.0), anchor_day), next, "{first} {anchor_day}");
    }
}

#[test]
fn looking_late_gives_the_same_period_as_looking_every_day() {
    for anchor_day in (1..=31).map(|day| AnchorDay::new(day).unwrap()) {
        for start in 0..400_u16 {
            let start = date("2027-01-01").0 + start;
            let natural = Period::beginning_on(Day(start)).at(Day(start + 90), anchor_day);
            for late in [200, 365, 800] {
                let (mut day, mut period) = (Day::of(natural.0).0, natural);
                while day < start + late {
                    day += 1;
                    let next = period.at(Day(day), anchor_day);
                    assert!(next == period || (next.0 - period.0).num_days() >= 28);
                    period = next;
                }
                assert_eq!(natural.at(Day(day), anchor_day), period, "{natural} {anchor_day} {late}");
            }
        }
    }
}

#[test]
fn a_change_of_anchor_gives_one_period_of_28_to_59_days() {
    for start in 0..1_461 {
        let first = Period::beginning_on(Day(date("2027-01-01").0 + start));
        for anchor_day in 1..=31 {
            let days = (first.next(AnchorDay::new(anchor_day).unwrap()).0 - first.0).num_days();
            assert!((28..=59).contains(&days), "{first} {anchor_day}: {days} days");
        }
    }
}

#[test]
fn no_sequence_of_anchors_and_days_begins_two_periods_within_28_days() {
    let mut random = 1_u32;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    let (mut day, mut period) = (date("2027-01-01").0, Period::beginning_on(date("2027-01-01")));
    let mut anchor_day = AnchorDay::FIRST;
    while day < 60_000 {
        if next(10) == 0 {
            anchor_day = AnchorDay::new(u8::try_from(next(31) + 1).unwrap()).unwrap();
        }
        // The clock may also step back.
        day = day + u16::try_from(next(20)).unwrap() - u16::try_from(next(3)).unwrap();
        let now = period.at(Day(day), anchor_day);
        assert!(now == period || (now.0 - period.0).num_days() >= 28, "{period} {now}");
        period = now;
    }
}
