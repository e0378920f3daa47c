//! Lessons: desktops are ready at the bell, and ended after it. Time goes by leaps here.

use crate::world::Classroom;
use serde_json::{Value, json};

/// A moment of a day, `2027-03-01T08:06:00Z`.
fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn rules(room: &Classroom, zone: &str) {
    room.send(
        "PATCH",
        "timetable/rules",
        json!({"zone": zone, "lead_floor_minutes": 5}),
    )
    .expect("rules");
}

fn lesson(room: &Classroom, body: Value) -> String {
    let mut lesson = json!({"course": room.course()});
    for (key, value) in body.as_object().unwrap() {
        lesson[key] = value.clone();
    }
    let made = room
        .send("POST", "timetable/lessons", lesson)
        .expect("lesson");
    made["id"].as_str().unwrap().to_owned()
}

fn monday(room: &Classroom) -> String {
    lesson(
        room,
        json!({"weekday": "mon", "begin": "08:10", "end": "10:00", "room": "A1"}),
    )
}

fn course_rules(room: &Classroom, at_end: &str) {
    let path = format!("courses/{}/timetable", room.course());
    room.send(
        "PUT",
        &path,
        json!({"starts": true, "at_end": at_end, "grace_minutes": 5}),
    )
    .expect("rules");
}

/// All desktops of the class are in this phase.
fn all_are(room: &Classroom, count: usize, phase: &str) -> bool {
    let desktops = room.desktops();
    desktops.len() == count && desktops.iter().all(|d| d["phase"] == phase)
}

/// The occurrences of a week.
fn week(room: &Classroom, first: &str) -> Vec<Value> {
    let week = room.get(&format!("timetable/week?first={first}"));
    week["occurrences"].as_array().unwrap().clone()
}

fn orders(room: &Classroom) -> Vec<(String, String)> {
    let all = room.get("operations");
    let mut found: Vec<(String, String)> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| {
            let word = |key: &str| o[key].as_str().unwrap_or_default().to_owned();
            (word("requested_by"), word("kind"))
        })
        .collect();
    found.reverse();
    found
}

fn by_timetable(kind: &str) -> (String, String) {
    ("timetable".to_owned(), kind.to_owned())
}

#[test]
fn the_bell_starts_a_class_and_its_end_saves_it_each_once_over_kills() {
    let mut room = Classroom::slow(3);
    rules(&room, "UTC");
    monday(&room);
    room.set_clock(at("2027-03-01T08:00:00Z"));
    assert_eq!(week(&room, "2027-03-01")[0]["state"], "planned");
    let now = room.get("timetable/now");
    assert_eq!(
        (&now["hours"], &now["mode"]),
        (&json!("class"), &json!("memory-balance"))
    );
    assert_eq!(
        now["seats_wanted"], 3,
        "hosts are wanted before desktops are started: {now}"
    );
    room.set_clock(at("2027-03-01T08:06:00Z"));
    room.until("the class is ordered", |room| room.desktops().len() == 3);
    room.kill_controller();
    room.start_controller();
    room.until("the class runs", |room| all_are(room, 3, "running"));
    assert_eq!(room.machine_starts(), 3);
    assert_eq!(orders(&room), [by_timetable("course.start")]);
    let lesson = &week(&room, "2027-03-01")[0];
    assert_eq!(
        (&lesson["state"], &lesson["room"]),
        (&json!("preparing"), &json!("A1"))
    );
    let now = room.get("timetable/now");
    assert_eq!(now["seats_wanted"], 0, "everybody has a seat: {now}");

    room.set_clock(at("2027-03-01T10:00:01Z"));
    room.until("the lesson is ended", |room| orders(room).len() == 2);
    room.kill_controller();
    room.start_controller();
    room.until("the class is saved", |room| all_are(room, 3, "suspended"));
    room.until("it is over", |room| {
        week(room, "2027-03-01")[0]["state"] == "done"
    });
    room.check_one_machine_each(0);

    // The week after: windows are open again, and one who is gone from the class is not started.
    room.set_clock(at("2027-03-08T08:06:00Z"));
    room.until("the class runs again", |room| all_are(room, 3, "running"));
    assert_eq!(room.desktops()[0]["started_by"], "resume");
    assert_eq!(
        orders(&room),
        [
            by_timetable("course.start"),
            by_timetable("course.suspend"),
            by_timetable("course.start")
        ]
    );
}

#[test]
fn a_persons_order_wins() {
    let mut room = Classroom::new(3);
    rules(&room, "UTC");
    monday(&room);
    course_rules(&room, "stop");
    room.set_clock(at("2027-03-01T08:06:00Z"));
    room.until("the class runs", |room| all_are(room, 3, "running"));
    let id = |n: usize| room.desktops()[n]["id"].as_str().unwrap().to_owned();
    let (stopped, kept, third) = (id(0), id(1), id(2));
    room.order_one(&stopped, "stop");
    room.order_one(&kept, "start");
    // As if the lesson had only begun: what was done is in the store, and nothing else counts.
    room.kill_controller();
    room.set_clock(at("2027-03-01T09:00:00Z"));
    room.start_controller();
    let phase = |room: &Classroom, id: &str| room.get(&format!("desktops/{id}"))["phase"].clone();
    room.set_clock(at("2027-03-01T10:00:01Z"));
    room.until("the lesson is ended", |room| {
        phase(room, &third) == "stopped"
    });
    room.until("it is over", |room| {
        week(room, "2027-03-01")[0]["state"] == "done"
    });
    assert_eq!(phase(&room, &kept), "running", "it was started by hand");
    assert_eq!(phase(&room, &stopped), "stopped");
    room.check_one_machine_each(1);
    // The first order of each kind is the timetable's, and there is no second one.
    let mine: Vec<_> = orders(&room)
        .into_iter()
        .filter(|(by, _)| by == "timetable")
        .collect();
    assert_eq!(
        mine,
        [by_timetable("course.start"), by_timetable("course.stop")]
    );
}

#[test]
fn a_controller_that_was_down_at_the_bell_catches_up_only_while_the_lesson_is_on() {
    let mut room = Classroom::new(2);
    rules(&room, "UTC");
    monday(&room);
    lesson(
        &room,
        json!({"weekday": "mon", "begin": "13:00", "end": "14:00"}),
    );
    room.kill_controller();
    room.set_clock(at("2027-03-01T10:30:00Z"));
    room.start_controller();
    room.set_clock(at("2027-03-01T13:30:00Z"));
    room.until("the lesson that is on has its desktops", |room| {
        all_are(room, 2, "running")
    });
    let states: Vec<Value> = week(&room, "2027-03-01")
        .iter()
        .map(|o| o["state"].clone())
        .collect();
    assert_eq!(states, ["missed", "on"]);
    assert_eq!(orders(&room), [by_timetable("course.start")]);
}

#[test]
fn holidays_and_cancelled_lessons_do_nothing_and_a_moved_one_does() {
    let mut room = Classroom::new(2);
    rules(&room, "UTC");
    let id = monday(&room);
    let holiday =
        json!({"kind": "holiday", "name": "中秋節", "first": "2027-03-01", "last": "2027-03-01"});
    room.send("POST", "timetable/days", holiday)
        .expect("holiday");
    let exception = |date: &str, body: Value| {
        room.send(
            "PUT",
            &format!("timetable/lessons/{id}/exceptions/{date}"),
            body,
        )
    };
    exception("2027-03-08", json!({"cancelled": true})).expect("cancelled");
    exception(
        "2027-03-15",
        json!({"to_date": "2027-03-16", "begin": "13:00", "end": "14:00"}),
    )
    .expect("moved");
    let (status, why) = exception("2027-03-09", json!({"cancelled": true})).expect_err("a Tuesday");
    assert_eq!((status, &why["code"]), (422, &json!("invalid")));
    for day in ["2027-03-01", "2027-03-08", "2027-03-15"] {
        room.set_clock(at(&format!("{day}T08:30:00Z")));
        let now = room.get("timetable/now");
        assert_eq!(
            (&now["running"], &now["seats_wanted"]),
            (&json!([]), &json!(0)),
            "{day}"
        );
        assert_eq!(now["mode"], "power-saving");
        // A look of the controller at this time begins and ends.
        room.kill_controller();
        room.start_controller();
    }
    let days = room.get("timetable/week?first=2027-03-01")["days"].clone();
    assert_eq!(
        (&days[0]["holiday"], &days[0]["school"]),
        (&json!("中秋節"), &json!(false))
    );
    room.set_clock(at("2027-03-16T12:56:00Z"));
    room.until("the moved lesson has its desktops", |room| {
        all_are(room, 2, "running")
    });
    assert_eq!(orders(&room), [by_timetable("course.start")]);
}

#[test]
fn in_the_week_in_which_clocks_change_the_bell_is_at_its_time_of_day() {
    let room = Classroom::new(1);
    rules(&room, "Europe/Berlin");
    monday(&room);
    let bell = |day: &str| week(&room, day)[0]["begin"].as_i64().unwrap();
    assert_eq!(bell("2027-03-22"), at("2027-03-22T07:10:00Z"));
    assert_eq!(bell("2027-03-29"), at("2027-03-29T06:10:00Z"));
    room.set_clock(at("2027-03-29T06:06:00Z"));
    room.until("the class runs", |room| all_are(room, 1, "running"));
    room.set_clock(at("2027-03-29T08:00:01Z"));
    room.until("the class is saved", |room| all_are(room, 1, "suspended"));
    assert_eq!(week(&room, "2027-03-29")[0]["begin_clock"], "08:10");
}

#[test]
fn a_class_that_does_not_fit_yet_gets_what_there_is_and_the_rest_later() {
    let room = Classroom::new(6);
    rules(&room, "UTC");
    monday(&room);
    course_rules(&room, "reset");
    room.send("PATCH", "settings", json!({"seats_per_host": 1}))
        .expect("settings");
    room.set_clock(at("2027-03-01T08:09:00Z"));
    room.until("who has a seat is started", |room| {
        room.desktops()
            .iter()
            .filter(|d| d["phase"] == "running")
            .count()
            == 3
    });
    room.until("the page says why the others wait", |room| {
        week(room, "2027-03-01")[0]["note"]
            .as_str()
            .unwrap()
            .contains("room")
    });
    assert_eq!(room.get("timetable/now")["seats_wanted"], 3);
    room.send("PATCH", "settings", json!({"seats_per_host": 0}))
        .expect("settings");
    room.until("all are started", |room| all_are(room, 6, "running"));
    room.until("there is nothing more to say", |room| {
        week(room, "2027-03-01")[0]["note"] == ""
    });
    assert_eq!(room.machine_starts(), 6);
    room.set_clock(at("2027-03-01T10:00:01Z"));
    room.until("all are as new the next time", |room| {
        all_are(room, 6, "stopped") && room.overlays().is_empty()
    });
}

#[test]
fn a_calendar_file_is_previewed_and_taken_over() {
    let room = Classroom::new(1);
    rules(&room, "Europe/Berlin");
    let ics = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:a\r\nSUMMARY:programming\r\nDTSTART:20270301T081000\r\nDTEND:20270301T100000\r\nRRULE:FREQ=WEEKLY\r\nEND:VEVENT\r\n\
BEGIN:VEVENT\r\nUID:b\r\nSUMMARY:Physics\r\nDTSTART:20270301T081000\r\nDTEND:20270301T100000\r\nEND:VEVENT\r\n\
BEGIN:VEVENT\r\nUID:h\r\nSUMMARY:Easter\r\nDTSTART;VALUE=DATE:20270326\r\nDTEND;VALUE=DATE:20270330\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
    let body = json!({"ics": ics, "holidays": true, "replace": true});
    let preview = room
        .send("POST", "timetable/import/preview", body.clone())
        .expect("preview");
    assert_eq!(preview["unknown_courses"], json!(["Physics"]));
    assert_eq!(preview["lessons"][0]["change"], "new");
    assert!(
        room.get("timetable")["lessons"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    room.send("POST", "timetable/import", body.clone())
        .expect("taken over");
    let table = room.get("timetable");
    assert_eq!(table["lessons"].as_array().unwrap().len(), 1);
    assert_eq!(table["days"][0]["last"], "2027-03-29");
    assert!(week(&room, "2027-03-29").is_empty(), "Easter Monday");
    let again = room.send("POST", "timetable/import", body).expect("again");
    assert_eq!(again["lessons"][0]["change"], "same");
    let broken = json!({"ics": ics.replace("FREQ=WEEKLY", "FREQ=YEARLY")});
    let (status, why) = room
        .send("POST", "timetable/import", broken)
        .expect_err("yearly");
    assert_eq!(status, 422);
    assert!(why["message"].as_str().unwrap().contains("line 7"), "{why}");
    assert_eq!(
        room.get("timetable")["lessons"].as_array().unwrap().len(),
        1
    );
}
