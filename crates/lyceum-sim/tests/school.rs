//! A school week, with the numbers it has to reach.
#![allow(missing_docs, clippy::unwrap_used)]

use lyceum_sim::*;

#[test]
fn a_school_week() {
    let report = rehearse(&Scenario::default(), None).unwrap();
    assert_eq!((report.hosts, report.students), (40, 1000));
    let of = |rule: Rule| report.outcomes.iter().find(|o| o.policy == rule).unwrap();
    for o in &report.outcomes {
        println!("{}", serde_line(o));
    }
    let (none, paper, ours) = (of(Rule::None), of(Rule::Paper), of(Rule::Ours));
    assert!(none.saved_percent < 2.0);
    assert!(ours.saved_percent >= 60.0, "{}", ours.saved_percent);
    assert!(ours.saved_percent >= paper.saved_percent + 5.0);
    assert_eq!(ours.bell_without_seat, 0);
    assert!(ours.bell_wait_p95_s <= none.bell_wait_p95_s);
    assert!(page(&report).contains("less than always on"));
}

/// A small school, so that odd things can be tried quickly.
fn small(policies: Vec<Rule>) -> Scenario {
    Scenario {
        policies,
        courses: vec![Course {
            name: "c".into(),
            students: 40,
            periods: vec![
                "mon 08:10-10:00".to_owned().try_into().unwrap(),
                "sun 23:00-23:50".to_owned().try_into().unwrap(),
            ],
        }],
        hosts: Hosts {
            count: 4,
            ..Hosts::default()
        },
        ..Scenario::default()
    }
}

#[test]
fn the_same_scenario_gives_the_same_report_and_recorded_sessions_are_replayed() {
    let scenario = small(vec![Rule::None, Rule::Paper, Rule::Ours]);
    let report = rehearse(&scenario, None).unwrap();
    assert_eq!(rehearse(&scenario, None).unwrap(), report);
    let sessions: Vec<Session> = (0..30)
        .map(|i| Session {
            begin: f64::from(i) * 60.0,
            end: f64::from(i) * 60.0 + 90.0,
            cpu_percent: 10.0,
            class: None,
        })
        .collect();
    let report = rehearse(&scenario, Some(sessions.clone())).unwrap();
    assert_eq!(report.sessions, 30);
    let ours = &report.outcomes[2];
    assert!(ours.saved_percent > 50.0, "{}", ours.saved_percent);
    let mut bad = sessions;
    bad[3].end = f64::NAN;
    assert_eq!(
        rehearse(&scenario, Some(bad)).unwrap_err().place,
        "sessions[3].end"
    );
}

#[test]
fn what_breaks_is_survived() {
    let scenario = Scenario {
        failures: Failures {
            hours_between: 6.0,
            repair_minutes: 60,
            no_boot: 0.3,
        },
        ..small(vec![Rule::None, Rule::Paper, Rule::Ours])
    };
    let report = rehearse(&scenario, None).unwrap();
    assert!(
        report.outcomes.iter().all(|o| o.interrupted > 0),
        "{report:?}"
    );
}

#[test]
fn contradictions_are_named() {
    let wrong = |text: &str| toml::from_str::<Scenario>(text).map(|s| s.check());
    for (text, place) in [
        ("weeks = 0", "weeks"),
        ("hosts = { count = 0 }", "hosts.count"),
        ("hosts = { cpu_cores = nan }", "hosts.cpu_cores"),
        ("failures = { no_boot = -0.1 }", "failures.no_boot"),
        ("paper_thresholds = [1, 2]", "paper_thresholds"),
        ("policies = []", "policies"),
    ] {
        assert_eq!(wrong(text).unwrap().unwrap_err().place, place);
    }
    for text in [
        "week = 1",
        "courses = [{ name = \"a\", students = 1, periods = [\"mon 9-8\"] }]",
    ] {
        assert!(wrong(text).is_err(), "{text}");
    }
    // What is written is what is read.
    let text = toml::to_string(&Scenario::default()).unwrap();
    assert_eq!(
        toml::from_str::<Scenario>(&text).unwrap(),
        Scenario::default()
    );
}

fn serde_line(o: &Outcome) -> String {
    format!(
        "{:?}",
        Outcome {
            points: vec![],
            ..o.clone()
        }
    )
}

#[test]
fn many_seeds_and_no_seat_missing_at_a_bell() {
    for seed in 2..5 {
        let scenario = Scenario {
            seed,
            policies: vec![Rule::Ours],
            ..Scenario::default()
        };
        let report = rehearse(&scenario, None).unwrap();
        assert_eq!(report.outcomes[0].bell_without_seat, 0, "seed {seed}");
        assert!(report.outcomes[0].saved_percent >= 60.0);
    }
}

#[test]
fn holidays_clock_changes_and_a_calendar_file_are_played() {
    let school = |calendar: &str| -> Scenario {
        toml::from_str(&format!(
            "weeks = 2\npolicies = [\"ours\"]\nself_study = {{ per_hour = 0.0, per_hour_quiet = 0.0 }}\n\
             failures = {{ hours_between = 0.0, no_boot = 0.0 }}\n\
             courses = [{{ name = \"Maths\", students = 20, periods = [\"mon 08:00-09:00\"] }}]\n{calendar}"
        ))
        .unwrap()
    };
    let bells = |calendar: &str| {
        let report = rehearse(&school(calendar), None).unwrap();
        assert_eq!(report.outcomes[0].bell_without_seat, 0);
        report.outcomes[0].bell_students
    };
    let two = bells("");
    assert!(two > 30, "{two}");
    // The second Monday is a holiday.
    let one = bells(
        "[calendar]\nfirst_day = \"2026-03-23\"\nzone = \"Europe/Berlin\"\nholidays = [{ name = \"h\", first = \"2026-03-30\", last = \"2026-03-30\" }]",
    );
    assert!(one > 15 && one <= 20, "{one}");
    // Clocks go forward between the two Mondays; a file has one lesson more each week.
    let ics = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:maths\nDTSTART:20260324T080000\nDTEND:20260324T090000\nRRULE:FREQ=WEEKLY\nEND:VEVENT\nEND:VCALENDAR";
    let calendar = |ics: &str| {
        format!(
            "[calendar]\nfirst_day = \"2026-03-23\"\nzone = \"Europe/Berlin\"\nics = '''{ics}'''"
        )
    };
    let four = bells(&calendar(ics));
    assert!(four > two + 30, "{four}");
    let wrong = |calendar: &str| rehearse(&school(calendar), None).unwrap_err();
    let unknown = wrong(&calendar(&ics.replace("maths", "physics")));
    assert_eq!(unknown.place, "calendar.ics");
    assert!(unknown.why.starts_with("line 2: "), "{unknown}");
    assert_eq!(
        wrong("[calendar]\nfirst_day = \"2026-03-24\"").place,
        "calendar.first_day"
    );
    assert_eq!(wrong("[calendar]\nzone = \"Moon\"").place, "calendar.zone");
}
