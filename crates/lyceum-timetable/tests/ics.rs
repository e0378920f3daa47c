//! Calendars as they are exported, and such as are made to do harm.
#![allow(missing_docs, clippy::unwrap_used)]

use jiff::civil::date;
use lyceum_timetable::ics::{self, Calendar};
use lyceum_timetable::*;
use proptest::prelude::*;

fn school() -> Zone {
    Zone::named("Europe/Berlin").unwrap()
}

fn calendar(events: &str) -> String {
    format!(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{}END:VCALENDAR\r\n",
        events.replace('\n', "\r\n")
    )
}

fn event(lines: &str) -> String {
    calendar(&format!(
        "BEGIN:VEVENT\nUID:u1\nSUMMARY:Maths\n{lines}\nEND:VEVENT\n"
    ))
}

fn read(text: &str) -> Calendar {
    ics::read(text, &school()).unwrap()
}

/// Occurrences in a time, on the school's clock.
fn occurrences(found: &Calendar, first: jiff::civil::Date, last: jiff::civil::Date) -> Vec<String> {
    let mut table = Timetable::new(school());
    table.lessons = found.lessons.iter().map(|f| f.lesson.clone()).collect();
    table.check().unwrap();
    let (from, to) = table.days(first, last);
    table
        .between(from, to)
        .iter()
        .map(|o| {
            format!(
                "{} {}",
                table.zone.civil(o.begin).strftime("%m%d %H:%M"),
                o.minutes()
            )
        })
        .collect()
}

#[test]
fn a_calendar_as_schools_export_it() {
    let text = calendar(
        "BEGIN:VTIMEZONE\nTZID:Our own\nX-LIC-LOCATION:Europe/Berlin\nBEGIN:STANDARD\nDTSTART:19701025T030000\nRRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU\nEND:STANDARD\nEND:VTIMEZONE\n\
BEGIN:VEVENT\nUID:a@school\nSUMMARY:Informatics\\, year 2\nLOCATION:Room \"B\n  12\"\nDTSTART;TZID=Our own:20260309T081000\nDTEND;TZID=Our own:20260309T100000\n\
RRULE:FREQ=WEEKLY;UNTIL=20260415T235959Z;BYDAY=MO,WE;WKST=MO\nEXDATE;TZID=Our own:20260316T081000,20260318T081000\nBEGIN:VALARM\nTRIGGER:-PT5M\nACTION:DISPLAY\nEND:VALARM\nEND:VEVENT\n\
BEGIN:VEVENT\nUID:a@school\nSUMMARY:Informatics\\, year 2\nRECURRENCE-ID;TZID=Our own:20260323T081000\nDTSTART;TZID=Our own:20260324T130000\nDTEND;TZID=Our own:20260324T140000\nEND:VEVENT\n\
BEGIN:VEVENT\nUID:a@school\nSUMMARY:Informatics\\, year 2\nSTATUS:CANCELLED\nRECURRENCE-ID;TZID=Our own:20260325T081000\nDTSTART;TZID=Our own:20260325T081000\nDTEND;TZID=Our own:20260325T100000\nEND:VEVENT\n\
BEGIN:VEVENT\nUID:h\nSUMMARY:Easter\nDTSTART;VALUE=DATE:20260403\nDTEND;VALUE=DATE:20260407\nEND:VEVENT\n",
    );
    let found = read(&text);
    assert_eq!(found.problems, []);
    assert_eq!(
        found.days,
        [Span {
            name: "Easter".into(),
            first: date(2026, 4, 3),
            last: date(2026, 4, 6)
        }]
    );
    assert_eq!(found.lessons[0].summary, "Informatics, year 2");
    assert_eq!(
        found.lessons[0].lesson.room.as_deref(),
        Some("Room \"B 12\"")
    );
    assert_eq!(
        occurrences(&found, date(2026, 3, 1), date(2026, 4, 30)),
        [
            "0309 08:10 110",
            "0311 08:10 110",
            "0324 13:00 60",
            "0330 08:10 110",
            "0401 08:10 110",
            "0406 08:10 110",
            "0408 08:10 110",
            "0413 08:10 110",
            "0415 08:10 110"
        ]
    );
}

#[test]
fn rules() {
    for (lines, expect) in [
        // Counted, also when the rule names several days.
        (
            "DTSTART:20260310T080000\nDTEND:20260310T090000\nRRULE:FREQ=WEEKLY;COUNT=4;BYDAY=TU,TH",
            "0310 08:00 60,0312 08:00 60,0317 08:00 60,0319 08:00 60",
        ),
        (
            "DTSTART:20260312T080000\nDURATION:PT45M\nRRULE:FREQ=WEEKLY;COUNT=3;INTERVAL=2;BYDAY=TU,TH",
            "0312 08:00 45,0324 08:00 45,0326 08:00 45",
        ),
        (
            "DTSTART:20260312T080000\nDURATION:PT45M\nRRULE:FREQ=DAILY;COUNT=3",
            "0312 08:00 45,0313 08:00 45,0314 08:00 45",
        ),
        (
            "DTSTART:20260313T080000\nDURATION:PT45M\nRRULE:FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR;COUNT=2",
            "0313 08:00 45,0316 08:00 45",
        ),
        // Universal time stays universal time: an hour later on the wall from the end of March.
        (
            "DTSTART:20260323T070000Z\nDTEND:20260323T074500Z\nRRULE:FREQ=WEEKLY;COUNT=2",
            "0323 08:00 45,0330 09:00 45",
        ),
        (
            "DTSTART;TZID=Taipei Standard Time:20260323T150000\nDTEND;TZID=Taipei Standard Time:20260323T154500\nRRULE:FREQ=WEEKLY;COUNT=2",
            "0323 08:00 45,0330 09:00 45",
        ),
        // The last bell is at the end itself, or after it.
        (
            "DTSTART;TZID=Europe/Berlin:20260302T080000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;UNTIL=20260309T070000Z",
            "0302 08:00 60,0309 08:00 60",
        ),
        (
            "DTSTART;TZID=Europe/Berlin:20260302T080000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;UNTIL=20260309T065959Z",
            "0302 08:00 60",
        ),
        (
            "DTSTART:20260302T080000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;UNTIL=20260309",
            "0302 08:00 60,0309 08:00 60",
        ),
        // Dates beside the rule; those it has anyway are not there twice.
        (
            "DTSTART:20260302T080000\nDURATION:PT1H\nRDATE:20260304T100000,20260309T080000,20260311T080000\nRRULE:FREQ=WEEKLY;COUNT=2\nEXDATE:20260311T080000",
            "0302 08:00 60,0304 10:00 60,0309 08:00 60",
        ),
        // Over midnight.
        (
            "DTSTART:20260302T230000\nDTEND:20260303T010000",
            "0302 23:00 120",
        ),
    ] {
        let found = read(&event(lines));
        assert_eq!(found.problems, [], "{lines}");
        assert_eq!(
            occurrences(&found, date(2026, 3, 1), date(2026, 5, 30)).join(","),
            expect,
            "{lines}"
        );
    }
}

#[test]
fn what_is_not_taken_over_is_said_with_its_line() {
    let with = |more: &str| format!("DTSTART:20260302T080000\nDTEND:20260302T090000\n{more}");
    for (lines, line, why) in [
        (with("RRULE:FREQ=MONTHLY"), 8, "MONTHLY"),
        (with("RRULE:FREQ=WEEKLY;BYSETPOS=1"), 8, "BYSETPOS"),
        (with("RRULE:FREQ=WEEKLY;BYDAY=1MO"), 8, "1MO"),
        (with("RRULE:FREQ=WEEKLY;BYDAY=TU"), 8, "does not name"),
        (with("RRULE:FREQ=WEEKLY;INTERVAL=0"), 8, "above 0"),
        (with("RRULE:FREQ=WEEKLY;INTERVAL=53"), 8, "52"),
        (with("RRULE:FREQ=DAILY;INTERVAL=2"), 8, "every few days"),
        (with("RRULE:COUNT=2"), 8, "FREQ"),
        (with("EXDATE:2026"), 8, "no date"),
        (
            with("RECURRENCE-ID;RANGE=THISANDFUTURE:20260302T080000"),
            8,
            "RANGE",
        ),
        ("DTSTART:20260302T080000".into(), 3, "ends"),
        ("DTEND:20260302T080000".into(), 3, "begins"),
        (
            "DTSTART:20260302T080000\nDTEND:20260304T080000".into(),
            7,
            "1440",
        ),
        (
            "DTSTART:20260302T080000\nDTEND:20260302T070000".into(),
            7,
            "1440",
        ),
        (
            "DTSTART:20260302T080000\nDURATION:-PT5M".into(),
            7,
            "length",
        ),
        (
            "DTSTART;TZID=Moon/Base:20260302T080000\nDURATION:PT5M".into(),
            6,
            "Moon/Base",
        ),
        (
            "DTSTART;TZID=../../etc/passwd:20260302T080000\nDURATION:PT5M".into(),
            6,
            "passwd",
        ),
        (
            "DTSTART:20260232T080000\nDURATION:PT5M".into(),
            6,
            "no date",
        ),
        (
            "DTSTART;VALUE=DATE:20260302\nRRULE:FREQ=YEARLY".into(),
            7,
            "holiday",
        ),
    ] {
        let found = read(&event(&lines));
        assert_eq!(found.lessons, [], "{lines}");
        assert_eq!(found.problems.len(), 1, "{lines}");
        let problem = &found.problems[0];
        assert_eq!(
            (problem.line, problem.summary.as_str()),
            (line, "Maths"),
            "{lines}: {}",
            problem.why
        );
        assert!(problem.why.contains(why), "{lines}: {}", problem.why);
    }
    for (text, line) in [
        ("", 1),
        ("<html>", 1),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR\n", 3),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\n", 2),
        ("BEGIN:VCALENDAR\nno colon\nEND:VCALENDAR", 2),
        ("BEGIN:VCALENDAR\nA;B=\"c:d\nEND:VCALENDAR", 2),
        ("END:VCALENDAR", 1),
        (" BEGIN:VCALENDAR", 1),
        ("BEGIN:VEVENT\nEND:VEVENT", 1),
    ] {
        let error = ics::read(text, &school()).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.to_string().starts_with(&format!("line {line}: ")));
    }
}

/// What a file asks for costs no more than the file has bytes.
#[test]
fn enormous_rules_are_bounded() {
    for rule in [
        "FREQ=WEEKLY;COUNT=18446744073709551615;BYDAY=MO,TU,WE,TH,FR,SA,SU",
        "FREQ=WEEKLY;COUNT=4294967295;INTERVAL=52",
        "FREQ=DAILY;UNTIL=99991231T235959Z",
        "FREQ=WEEKLY",
    ] {
        let found = read(&event(&format!(
            "DTSTART:20260302T080000\nDURATION:PT1H\nRRULE:{rule}"
        )));
        assert!(
            found.problems.is_empty() && found.lessons.len() <= 7,
            "{rule}"
        );
        assert!(
            occurrences(&found, date(2026, 1, 1), date(9999, 12, 31)).len()
                <= HORIZON_DAYS as usize + 7
        );
    }
    // Most of what a file may have.
    let dates: Vec<String> = (0..ics::MAX_DATES + 1)
        .map(|i| {
            format!(
                "{:04}{:02}{:02}T080000",
                2026 + i / 336,
                i % 336 / 28 + 1,
                i % 28 + 1
            )
        })
        .collect();
    let lists: Vec<String> = dates
        .chunks(5000)
        .map(|list| format!("RDATE:{}", list.join(",\n ")))
        .collect();
    let lines = format!(
        "DTSTART:20260302T080000\nDURATION:PT1H\n{}",
        lists.join("\n")
    );
    let found = read(&event(&lines));
    assert!(found.lessons.is_empty() && found.problems[0].why.contains("dates"));
    let one = "BEGIN:VEVENT\nDTSTART:20260302T080000\nDURATION:PT1H\nEND:VEVENT\n";
    let error = ics::read(&calendar(&one.repeat(ics::MAX_EVENTS + 1)), &school()).unwrap_err();
    assert!(error.why.contains("events"), "{error}");
    let error = ics::read(&" ".repeat(ics::MAX_BYTES + 1), &school()).unwrap_err();
    assert!(error.why.contains("bytes"), "{error}");
    let deep = format!("BEGIN:VCALENDAR\n{}", "BEGIN:X\n".repeat(100_000));
    assert!(
        ics::read(&deep, &school())
            .unwrap_err()
            .why
            .contains("deep")
    );
    let long = format!("BEGIN:VCALENDAR\nX:{}", "a\n ".repeat(1_000_000));
    assert!(
        ics::read(&long, &school())
            .unwrap_err()
            .why
            .contains("longer")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_panics_on_any_text(text in "\\PC*") {
        let _ = ics::read(&text, &school());
    }

    #[test]
    fn nothing_panics_on_any_event(
        lines in prop::collection::vec(
            ("(DTSTART|DTEND|DURATION|RRULE|EXDATE|RDATE|RECURRENCE-ID|STATUS|UID|BEGIN|END|LOCATION)",
             "(;TZID=[A-Za-z/\"]{0,8}|;VALUE=DATE|;RANGE=THIS)?",
             "(2026030[1-9]T0[0-9]0000Z?|0000[0-9]{4}|99991231T235959|PT[0-9]{1,7}[HMS]|FREQ=(WEEKLY|DAILY)(;COUNT=[0-9]{1,20})?(;UNTIL=[0-9]{8})?(;BYDAY=(MO|SU),(TU|FR))?|CANCELLED|VEVENT|\\PC{0,12})"),
            0..12),
    ) {
        let body: String = lines.iter().map(|(n, p, v)| format!("{n}{p}:{v}\n")).collect();
        if let Ok(found) = ics::read(&event(&body), &school()) {
            for f in &found.lessons {
                f.lesson.check().unwrap();
            }
            occurrences(&found, date(2026, 1, 1), date(2026, 12, 31));
        }
    }
}
