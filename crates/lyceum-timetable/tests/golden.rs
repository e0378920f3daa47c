//! Lessons in weeks in which clocks change, in several zones.
#![allow(missing_docs, clippy::unwrap_used)]

use jiff::civil::date;
use lyceum_timetable::*;
use std::collections::BTreeMap;

fn lesson(id: &str, day: Weekday, text: &str) -> Lesson {
    let (begin, end) = text.split_once('-').unwrap();
    let begin: Clock = begin.parse().unwrap();
    Lesson {
        id: id.into(),
        course: "c".into(),
        room: None,
        title: String::new(),
        when: When::Weekly {
            weekday: day,
            every_weeks: 1,
            from: None,
            until: None,
        },
        begin,
        minutes: begin.until(end.parse().unwrap()),
        zone: None,
        exceptions: BTreeMap::new(),
    }
}

/// The occurrences of two days as universal time and minutes.
fn check(zone: &str, day: jiff::civil::Date, lessons: &[&str], expect: &[&str]) {
    let mut table = Timetable::new(Zone::named(zone).unwrap());
    for (i, text) in lessons.iter().enumerate() {
        table
            .lessons
            .push(lesson(&format!("{i}"), Weekday::of(day), text));
    }
    table.check().unwrap();
    let (from, to) = table.days(day, day);
    let got: Vec<String> = table
        .between(from, to)
        .iter()
        .map(|o| {
            let begin = Zone::utc().civil(o.begin);
            format!(
                "{} {} {}",
                o.lesson,
                begin.strftime("%d %H:%M"),
                o.minutes()
            )
        })
        .collect();
    assert_eq!(got, expect, "{zone} {day}");
}

#[test]
fn weeks_in_which_clocks_go_forward() {
    // 02:00 to 03:00 is left out. The lesson in it has no time to take place in.
    let lessons = &[
        "01:30-02:00",
        "01:30-02:30",
        "02:10-02:50",
        "02:30-03:10",
        "03:00-03:45",
        "08:10-10:00",
    ];
    check(
        "Europe/Berlin",
        date(2026, 3, 29),
        lessons,
        &[
            "0 29 00:30 30",
            "1 29 00:30 30",
            "3 29 01:00 10",
            "4 29 01:00 45",
            "5 29 06:10 110",
        ],
    );
    check(
        "America/New_York",
        date(2026, 3, 8),
        lessons,
        &[
            "0 08 06:30 30",
            "1 08 06:30 30",
            "3 08 07:00 10",
            "4 08 07:00 45",
            "5 08 12:10 110",
        ],
    );
    // Half an hour only: 02:00 to 02:30.
    check(
        "Australia/Lord_Howe",
        date(2026, 10, 4),
        &["01:30-02:10", "02:10-02:50", "08:10-10:00"],
        &["0 03 15:00 30", "1 03 15:30 20", "2 03 21:10 110"],
    );
    // The day begins at 01:00.
    check(
        "Africa/Cairo",
        date(2026, 4, 24),
        &["00:10-00:50", "00:30-01:30", "08:10-10:00"],
        &["1 23 22:00 30", "2 24 05:10 110"],
    );
}

#[test]
fn weeks_in_which_clocks_go_back() {
    // 02:00 to 03:00 comes twice: the first counts.
    check(
        "Europe/Berlin",
        date(2026, 10, 25),
        &[
            "01:30-02:30",
            "02:10-02:50",
            "02:30-03:30",
            "03:00-03:45",
            "08:10-10:00",
        ],
        &[
            "0 24 23:30 60",
            "1 25 00:10 40",
            "2 25 00:30 120",
            "3 25 02:00 45",
            "4 25 07:10 110",
        ],
    );
    check(
        "America/New_York",
        date(2026, 11, 1),
        &["00:30-01:30", "01:30-02:30", "08:10-10:00"],
        &["0 01 04:30 60", "1 01 05:30 120", "2 01 13:10 110"],
    );
    check(
        "Australia/Lord_Howe",
        date(2026, 4, 5),
        &["01:40-02:20", "08:10-10:00"],
        &["0 04 14:40 70", "1 04 21:40 110"],
    );
}

#[test]
fn where_clocks_never_change_every_week_is_alike() {
    for day in [date(2026, 3, 29), date(2026, 10, 25), date(2026, 7, 5)] {
        let d = day.day();
        check(
            "Asia/Taipei",
            day,
            &["02:30-03:10", "08:10-10:00", "23:00-01:00"],
            // The last one of the week before reaches into no day of this week.
            &[
                &format!("0 {:02} 18:30 40", d - 1),
                &format!("1 {d:02} 00:10 110"),
                &format!("2 {d:02} 15:00 120"),
            ],
        );
    }
}

/// A lesson stays at its time of day, whatever universal time that is.
#[test]
fn a_bell_in_every_week_of_a_year() {
    for zone in [
        "Europe/Berlin",
        "America/New_York",
        "Asia/Taipei",
        "America/Santiago",
        "Pacific/Chatham",
    ] {
        let mut table = Timetable::new(Zone::named(zone).unwrap());
        table.lessons.push(lesson("a", Weekday::Mon, "08:10-10:00"));
        let (from, to) = table.days(date(2026, 1, 1), date(2026, 12, 31));
        let all = table.between(from, to);
        assert_eq!(all.len(), 52, "{zone}");
        for o in &all {
            assert_eq!(
                table.zone.civil(o.begin).strftime("%a %H:%M").to_string(),
                "Mon 08:10"
            );
            assert_eq!(o.minutes(), 110);
        }
    }
}

#[test]
fn terms_holidays_and_exceptions() {
    let mut table = Timetable::new(Zone::named("Asia/Taipei").unwrap());
    table.terms.push(Span {
        name: "autumn".into(),
        first: date(2026, 9, 1),
        last: date(2026, 12, 31),
    });
    table.holidays.push(Span {
        name: "中秋節".into(),
        first: date(2026, 9, 25),
        last: date(2026, 9, 25),
    });
    let mut weekly = lesson("fri", Weekday::Fri, "08:10-10:00");
    weekly.room = Some("A1".into());
    weekly
        .exceptions
        .insert(date(2026, 9, 4), Exception::Cancelled);
    weekly.exceptions.insert(
        date(2026, 9, 25),
        Exception::Moved {
            date: date(2026, 9, 26),
            begin: "13:00".parse().unwrap(),
            minutes: 50,
            room: Some("B2".into()),
        },
    );
    // Its rule does not name that day, so there is nothing to move.
    weekly.exceptions.insert(
        date(2026, 9, 24),
        Exception::Moved {
            date: date(2026, 9, 24),
            begin: "13:00".parse().unwrap(),
            minutes: 50,
            room: None,
        },
    );
    table.lessons.push(weekly);
    let mut other = lesson("b", Weekday::Wed, "08:10-10:00");
    other.when = When::Weekly {
        weekday: Weekday::Wed,
        every_weeks: 2,
        from: Some(date(2026, 9, 7)),
        until: Some(date(2026, 10, 7)),
    };
    table.lessons.push(other);
    let mut extra = lesson("extra", Weekday::Mon, "10:10-12:00");
    extra.when = When::Once {
        date: date(2026, 9, 25),
    };
    table.lessons.push(extra);
    table.check().unwrap();
    let (from, to) = table.days(date(2026, 8, 24), date(2026, 10, 9));
    let got: Vec<String> = table
        .between(from, to)
        .iter()
        .map(|o| {
            format!(
                "{} {} {} {}",
                o.lesson,
                o.date.strftime("%m%d"),
                table.zone.civil(o.begin).strftime("%m%d %H:%M"),
                o.room.as_deref().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        got,
        [
            "b 0909 0909 08:10 -",
            "fri 0911 0911 08:10 A1",
            "fri 0918 0918 08:10 A1",
            "b 0923 0923 08:10 -",
            "extra 0925 0925 10:10 -",
            "fri 0925 0926 13:00 B2",
            "fri 1002 1002 08:10 A1",
            "b 1007 1007 08:10 -",
            "fri 1009 1009 08:10 A1",
        ]
    );
    let bell = table.next_bell(
        Some("c"),
        table.zone.instant(date(2027, 1, 1).at(0, 0, 0, 0)),
    );
    assert_eq!(bell, None);
}

#[test]
fn class_hours() {
    let mut table = Timetable::new(Zone::named("Europe/Berlin").unwrap());
    for (i, text) in ["08:00-09:30", "09:45-11:15", "13:00-14:30", "19:00-20:00"]
        .iter()
        .enumerate()
    {
        table
            .lessons
            .push(lesson(&i.to_string(), Weekday::Sun, text));
    }
    let rule = HoursRule {
        before_minutes: 30,
        after_minutes: 10,
        bridge_minutes: 120,
    };
    // The day on which clocks go forward.
    let at = |h, m| table.zone.instant(date(2026, 3, 29).at(h, m, 0, 0));
    assert_eq!(
        table.hours(rule, at(7, 29)),
        (Hours::Other, Some(at(7, 30)))
    );
    assert_eq!(
        table.hours(rule, at(7, 30)),
        (Hours::Class, Some(at(14, 40)))
    );
    assert_eq!(
        table.hours(rule, at(12, 0)),
        (Hours::Class, Some(at(14, 40)))
    );
    assert_eq!(
        table.hours(rule, at(14, 40)),
        (Hours::Other, Some(at(18, 30)))
    );
    assert_eq!(
        table.hours(rule, at(19, 59)),
        (Hours::Class, Some(at(20, 10)))
    );
    let monday = table.zone.instant(date(2026, 3, 30).at(12, 0, 0, 0));
    assert_eq!(table.hours(rule, monday).0, Hours::Other);
    assert_eq!(
        Timetable::new(Zone::utc()).hours(rule, 0),
        (Hours::Other, None)
    );
}

#[test]
fn what_is_due_and_what_clashes() {
    let mut table = Timetable::new(Zone::utc());
    table.lessons.push(lesson("a", Weekday::Thu, "08:00-09:00"));
    let mut b = lesson("b", Weekday::Thu, "08:30-09:30");
    b.course = "d".into();
    b.room = Some("R".into());
    table.lessons.push(b.clone());
    // 1970-01-01 was a Thursday.
    let at = |h: i64, m: i64| (h * 60 + m) * MINUTE;
    let due = |now| {
        table
            .due(now, 60 * MINUTE, |o| {
                if o.course == "d" {
                    20 * MINUTE
                } else {
                    5 * MINUTE
                }
            })
            .into_iter()
            .map(|o| o.lesson)
            .collect::<Vec<_>>()
    };
    assert_eq!(due(at(7, 54)), [""; 0]);
    assert_eq!(due(at(7, 55)), ["a"]);
    assert_eq!(due(at(8, 10)), ["a", "b"]);
    assert_eq!(due(at(9, 0)), ["b"]);
    assert_eq!(due(at(9, 30)), [""; 0]);
    assert_eq!(table.running(at(8, 59)).len(), 2);
    let day = table.between(0, DAY);
    assert_eq!(clashes(&day), []);
    b.id = "c".into();
    b.course = "e".into();
    b.begin = "09:00".parse().unwrap();
    table.lessons.push(b);
    assert_eq!(
        clashes(&table.between(0, DAY)),
        [Clash {
            first: 1,
            second: 2,
            room: true
        }]
    );
}

#[test]
fn lead_times() {
    let rule = LeadRule {
        floor_minutes: 3,
        ceiling_minutes: 20,
        percent: 150,
    };
    assert_eq!(rule.lead(&[]), 3 * MINUTE);
    assert_eq!(rule.lead(&[10_000, 20_000]), 3 * MINUTE);
    assert_eq!(rule.lead(&[4 * MINUTE, 6 * MINUTE]), 9 * MINUTE);
    assert_eq!(rule.lead(&[i64::MAX, -5]), 20 * MINUTE);
}
