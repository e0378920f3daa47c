//! What holds for every timetable at every instant.
#![allow(missing_docs, clippy::unwrap_used)]

use jiff::civil::{Date, date};
use lyceum_timetable::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ZONES: [&str; 9] = [
    "Asia/Taipei",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Pacific/Apia",
    "UTC",
];

fn day() -> impl Strategy<Value = Date> {
    (0i64..1200).prop_map(|n| date(2025, 1, 1).saturating_add(jiff::ToSpan::days(n)))
}

fn room() -> impl Strategy<Value = Option<String>> {
    prop_oneof![Just(None), "[AB]".prop_map(Some)]
}

fn clock() -> impl Strategy<Value = Clock> {
    (0u16..1440).prop_map(|m| Clock::of_minute(m).unwrap())
}

prop_compose! {
    fn lesson()(
        course in "[cde]", room in room(), begin in clock(), minutes in 1u16..=1440,
        weekday in 0usize..7, every in 1u8..4, from in day(), long in 0i64..400, once in prop::bool::weighted(0.2),
        zone in prop::option::weighted(0.2, 0usize..9),
        exceptions in prop::collection::vec((day(), prop::option::of((day(), clock(), 1u16..300))), 0..6),
    ) -> Lesson {
        Lesson {
            id: String::new(), course, room, title: String::new(),
            when: if once { When::Once { date: from } } else {
                When::Weekly { weekday: Weekday::ALL[weekday], every_weeks: every, from: Some(from),
                    until: Some(from.saturating_add(jiff::ToSpan::days(long))) }
            },
            begin, minutes, zone: zone.map(|z| Zone::named(ZONES[z]).unwrap()),
            exceptions: if once { BTreeMap::new() } else {
                exceptions.into_iter().map(|(on, moved)| (on, match moved {
                    None => Exception::Cancelled,
                    Some((date, begin, minutes)) => Exception::Moved { date, begin, minutes, room: None },
                })).collect()
            },
        }
    }
}

prop_compose! {
    fn table()(zone in 0usize..9, mut lessons in prop::collection::vec(lesson(), 0..8),
        holidays in prop::collection::vec((day(), 0i64..30), 0..4)) -> Timetable {
        for (i, l) in lessons.iter_mut().enumerate() { l.id = i.to_string(); }
        Timetable {
            zone: Zone::named(ZONES[zone]).unwrap(), terms: vec![], lessons,
            holidays: holidays.into_iter().map(|(first, n)| Span {
                name: "h".into(), first, last: first.saturating_add(jiff::ToSpan::days(n)) }).collect(),
        }
    }
}

/// Instants near the clock changes of these years, and others.
fn instant() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => 1_735_689_600_000i64..1_830_000_000_000,
        1 => any::<i64>(),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 0, -1]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_panics_and_answers_agree(table in table(), now in instant(), span in 0i64..40 * DAY) {
        table.check().unwrap();
        let to = now.saturating_add(span);
        let all = table.between(now, to);
        for o in &all {
            prop_assert!(o.begin < o.end && o.end > now && o.begin < to);
        }
        prop_assert!(all.windows(2).all(|w| w[0].begin <= w[1].begin));
        // A time in two pieces has what the whole has.
        let middle = now.saturating_add(span / 2);
        let mut pieces = table.between(now, middle);
        for o in table.between(middle, to) {
            if !pieces.contains(&o) { pieces.push(o); }
        }
        if span > 1 {
            prop_assert_eq!(pieces.len(), all.len());
            prop_assert!(pieces.iter().all(|o| all.contains(o)));
        }
        // The next bell is the first that comes, and is found from just before it.
        if let Some(next) = all.iter().find(|o| o.begin > now) {
            prop_assert_eq!(table.next_bell(None, now).map(|o| o.begin), Some(next.begin));
            prop_assert_eq!(table.next_bell(Some(&next.course), next.begin - 1).map(|o| o.begin), Some(next.begin));
        }
        for o in table.running(now) {
            prop_assert!(o.is_on(now));
        }
        let rule = HoursRule::default();
        let (hours, until) = table.hours(rule, now);
        if !table.running(now).is_empty() && now.checked_add(DAY).is_some() && now.checked_sub(DAY).is_some() {
            prop_assert_eq!(hours, Hours::Class);
        }
        prop_assert!(until.is_none_or(|u| u > now));
    }

    /// What does not overlap on the wall clock does not overlap, whatever the clocks do.
    #[test]
    fn lessons_one_after_another_stay_so(
        zone in 0usize..9, day in day(), mut bells in prop::collection::btree_set(0u16..1440, 2..12),
    ) {
        bells.insert(0);
        let bells: Vec<u16> = bells.into_iter().collect();
        let mut table = Timetable::new(Zone::named(ZONES[zone]).unwrap());
        for (i, pair) in bells.windows(2).enumerate() {
            table.lessons.push(Lesson {
                id: i.to_string(), course: "c".into(), room: Some("r".into()), title: String::new(),
                when: When::Once { date: day }, begin: Clock::of_minute(pair[0]).unwrap(),
                minutes: pair[1] - pair[0], zone: None, exceptions: BTreeMap::new(),
            });
        }
        let (from, to) = table.days(day, day);
        let all = table.between(from, to);
        prop_assert!(clashes(&all).is_empty());
        // And they leave no hole that the wall clock does not have.
        prop_assert!(all.windows(2).all(|w| w[0].end == w[1].begin), "{:?}", all);
    }

    /// From the wall clock to the instant and back; and the order is kept.
    #[test]
    fn the_wall_clock_and_back(zone in 0usize..9, day in day(), a in clock(), b in clock()) {
        let zone = Zone::named(ZONES[zone]).unwrap();
        let (a, b) = (a.min(b), a.max(b));
        let of = |c: Clock| {
            let at = day.at((c.minute() / 60) as i8, (c.minute() % 60) as i8, 0, 0);
            (at, zone.instant(at))
        };
        prop_assert!(of(a).1 <= of(b).1);
        for (at, instant) in [of(a), of(b)] {
            let shown = zone.civil(instant);
            // Later only when the clock never shows it.
            prop_assert!(shown >= at);
            if shown > at {
                prop_assert!(zone.civil(instant - 1) < at);
            }
        }
    }
}
