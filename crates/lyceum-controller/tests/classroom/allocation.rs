//! Plans are carried out on a classroom of simulated machines: consolidated, hosts off, hosts on; whatever is
//! killed or comes in between.

use crate::world::Classroom;
use lyceum_hypervisor::sim::SimConfig;
use lyceum_store::power::{self, Power, State};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Hosts wait for silence to be sure that one is off, so this takes longer than the rest.
const PATIENCE: Duration = Duration::from_secs(180);

/// A classroom whose hosts can be switched, and what would be pressing their buttons.
struct Powered {
    room: Classroom,
    /// Hosts that don't come up.
    broken: BTreeSet<&'static str>,
    dark: BTreeSet<String>,
}

impl Powered {
    fn new(students: usize, save_ms: u64) -> Powered {
        let sim = SimConfig {
            fork_ms: 20,
            save_ms,
            ..SimConfig::default()
        };
        let room = Classroom::simulated(students, sim);
        room.send("PATCH", "settings", json!({"seats_per_host": 10}))
            .expect("settings");
        for host in ["kvm1", "kvm2", "kvm3"] {
            let setup = json!({"setup": {
                "method": {"by": "command", "name": "test"}, "watts": 100.0, "watts_off": 5.0}});
            room.send("PUT", &format!("hosts/{host}/power"), setup)
                .expect("power");
        }
        Powered {
            room,
            broken: BTreeSet::new(),
            dark: BTreeSet::new(),
        }
    }

    /// What the machines do: one with its flag ends, one whose flag is gone comes up.
    fn machines(&mut self) {
        for host in ["kvm1", "kvm2", "kvm3"] {
            let off = self.room.power_flag(host).exists();
            if off && self.dark.insert(host.into()) {
                self.room.kill_host(host);
            }
            if !off && !self.broken.contains(host) && self.dark.remove(host) {
                self.room.start_host(host);
            }
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, so: impl Fn(&Classroom) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.machines();
            if so(&self.room) {
                return;
            }
            assert!(
                Instant::now() < until,
                "not reached: {what}\n{:#}\n{:#}",
                self.room.get("plans")["items"][0],
                self.room.get("hosts")
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// These are off, as if they had been for long; nothing is on them.
    fn already_off(&mut self, hosts: &[&'static str]) {
        let store = self.room.store();
        for host in hosts {
            std::fs::write(self.room.power_flag(host), b"").unwrap();
            self.machines();
            let now = 1 + std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_millis() as i64;
            self.room.run(async {
                let mut tx = store.begin_write().await.unwrap();
                let id = host.parse().unwrap();
                let mut row = power::get_tx(&mut tx, &id)
                    .await
                    .unwrap()
                    .unwrap_or_else(|| Power::new(id, 0));
                row.become_(State::Off, now);
                power::put(&mut tx, &row).await.unwrap();
                tx.commit().await.unwrap();
            });
        }
    }

    fn allocation(&self, automatic: bool, policy: Value) {
        let mut all = json!({"automatic": automatic, "every_minutes": 1, "wake_timeout_s": 10, "settle_s": 0,
            "policy": {"mode": "power-saving", "off_threshold_seats": 5, "on_threshold_seats": 2,
                       "pause_minutes": 30, "min_on_minutes": 0, "min_off_minutes": 0, "overcommit": 8.0}});
        for (key, value) in policy.as_object().unwrap() {
            all["policy"][key] = value.clone();
        }
        self.room
            .send("PUT", "allocation", all)
            .expect("allocation");
    }

    fn act(&self, mode: &str) -> Value {
        let order = json!({"mode": mode, "act": true});
        self.room.send("POST", "plans", order).expect("plan")
    }
}

fn power_of(room: &Classroom) -> BTreeMap<String, String> {
    room.get("hosts")
        .as_array()
        .unwrap()
        .iter()
        .map(|h| {
            (
                h["id"].as_str().unwrap().to_owned(),
                h["power"]["state"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

fn on(room: &Classroom) -> usize {
    power_of(room).values().filter(|s| *s == "on").count()
}

fn plan(room: &Classroom, id: &str) -> Value {
    room.get(&format!("plans/{id}"))["plan"].clone()
}

fn is_over(room: &Classroom, id: &str) -> bool {
    plan(room, id)["state"] != "running"
}

/// Per desktop how often it was moved.
fn moves(room: &Classroom) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for m in room.get("moves")["items"].as_array().unwrap() {
        *count
            .entry(m["desktop"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    count
}

#[test]
fn a_quiet_classroom_is_consolidated_switched_off_and_switched_on_at_the_bell() {
    let mut p = Powered::new(12, 20);
    p.room.order("start", json!({}));
    // To be looked at only.
    p.allocation(false, json!({}));
    let shown = p.room.send("POST", "plans", json!({})).expect("plan");
    assert_eq!(shown["state"], "shown", "{shown:#}");
    assert_eq!(shown["mode"], "power-saving");
    let steps = shown["steps"].as_array().unwrap();
    assert!(
        steps
            .iter()
            .all(|s| !s["reason"].as_str().unwrap().is_empty()),
        "{shown:#}"
    );
    assert_eq!(steps.last().unwrap()["action"], "off", "{shown:#}");
    assert!(p.room.get("moves")["items"].as_array().unwrap().is_empty());
    assert_eq!(on(&p.room), 3);
    // What it would cost is known before.
    for step in steps.iter().filter(|s| s["action"] == "move") {
        assert_eq!(step["price"]["way"], "delta", "{shown:#}");
        assert!(step["price"]["travels_mib"].as_f64().unwrap() > 0.0);
        assert!(step["cost"].is_null());
    }
    assert!(shown["price"]["travels_mib"].as_f64().unwrap() > 0.0);
    // Nothing comes by itself, and nobody looked.
    let now = p.room.get("allocation");
    assert!(now["next_look"].is_null() && now["last_look"].is_null());
    // By itself.
    p.allocation(true, json!({}));
    p.until("one host is off", |room| {
        on(room) == 2 && power_of(room).values().any(|s| s == "off")
    });
    p.until("the plan is over", |room| {
        room.get("allocation")["running"].is_null()
    });
    let newest = p.room.get("plans")["items"][0].clone();
    assert_eq!(newest["state"], "done", "{newest:#}");
    assert!(newest["ordered_by"].is_null());
    // And what it really cost, beside that.
    for step in newest["steps"].as_array().unwrap() {
        let (price, cost) = (&step["price"], &step["cost"]);
        assert_eq!(price.is_object(), step["action"] == "move", "{newest:#}");
        assert_eq!(cost.is_object(), step["action"] == "move", "{newest:#}");
        if cost.is_object() {
            assert_eq!(cost["way"], price["way"], "{newest:#}");
            assert!(cost["total_ms"].is_u64() && cost["bytes"].is_u64());
        }
    }
    assert_eq!(newest["before"]["free_seats"], 18, "{newest:#}");
    assert_eq!(newest["after"]["free_seats"], 8, "{newest:#}");
    assert!(p.room.desktops().iter().all(|d| d["phase"] == "running"));
    p.room.check_one_machine_each(12);
    assert!(moves(&p.room).values().all(|n| *n == 1));

    // More seats are wanted now: what comes by itself waits for its pause, a person does not.
    p.allocation(
        true,
        json!({"on_threshold_seats": 9, "off_threshold_seats": 12}),
    );
    p.until("the pause is the reason that nothing is done", |room| {
        let newest = &room.get("plans")["items"][0];
        newest["state"] == "idle"
            && newest["not_done"].as_array().unwrap().iter().any(|n| {
                n["why"]
                    .as_str()
                    .unwrap()
                    .contains("a plan was carried out")
            })
    });
    let now = p.room.get("allocation");
    let look = &now["last_look"];
    assert_eq!(look["state"], "idle", "{now:#}");
    assert!(
        look["why"].to_string().contains("a plan was carried out"),
        "{now:#}"
    );
    assert!(now["next_look"].as_i64() >= look["at"].as_i64(), "{now:#}");
    assert!(now["not_before"].is_i64(), "{now:#}");
    let ordered = p.act("power-saving");
    let id = ordered["id"].as_str().unwrap().to_owned();
    assert_eq!(ordered["state"], "running", "{ordered:#}");
    p.until("the host is on again", |room| {
        on(room) == 3 && is_over(room, &id)
    });
    assert_eq!(plan(&p.room, &id)["state"], "done");
    // What is on it again takes part in a start.
    p.room.order("stop", json!({}));
    p.room.order("start", json!({}));
    p.room.check_one_machine_each(12);
}

#[test]
fn the_controller_killed_in_the_middle_of_a_plan_goes_on_and_moves_nothing_twice() {
    for kill_after in [1, 3] {
        let mut p = Powered::new(9, 250);
        p.room.order("start", json!({}));
        p.allocation(false, json!({}));
        let id = p.act("power-saving")["id"].as_str().unwrap().to_owned();
        p.until("it is in the middle", |room| {
            moves(room).len() >= kill_after
        });
        p.room.kill_controller();
        p.room.start_controller();
        p.until("the plan is over", |room| is_over(room, &id));
        let ended = plan(&p.room, &id);
        // Hosts are not heard in the first moments of a controller, so the host may stay on; every move was made.
        assert!(
            ended["steps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|s| s["action"] == "move")
                .all(|s| s["state"] == "done"),
            "{ended:#}"
        );
        assert!(moves(&p.room).values().all(|n| *n == 1), "moved twice");
        p.room.check_one_machine_each(9);
    }
}

#[test]
fn a_class_that_starts_while_power_is_saved_comes_first() {
    let mut p = Powered::new(9, 400);
    p.room.order("start", json!({}));
    let one = p.room.desktops()[0]["id"].as_str().unwrap().to_owned();
    p.room.order_one(&one, "stop");
    p.allocation(false, json!({}));
    let id = p.act("power-saving")["id"].as_str().unwrap().to_owned();
    p.until("it is in the middle", |room| !moves(room).is_empty());
    p.room.order_one(&one, "start");
    p.until("the plan is over", |room| is_over(room, &id));
    let ended = plan(&p.room, &id);
    // When it looked the start may have been over: then it is on a host that stays on, and is one more
    // desktop where one was to be switched off.
    let text = ended.to_string();
    assert!(
        ended["state"] == "done"
            || text.contains("they come first")
            || text.contains("desktops are on it"),
        "{ended:#}"
    );
    p.room.check_one_machine_each(9);
    for d in p.room.desktops() {
        assert_eq!(d["phase"], "running", "{d}");
        let power = power_of(&p.room);
        assert_eq!(power[d["host"].as_str().unwrap()], "on", "{d}");
    }
}

#[test]
fn a_host_that_does_not_come_up_is_reported_and_another_one_is_taken() {
    let mut p = Powered::new(6, 20);
    p.already_off(&["kvm2", "kvm3"]);
    p.allocation(
        false,
        json!({"on_threshold_seats": 12, "off_threshold_seats": 12}),
    );
    p.broken.insert("kvm2");
    let made = p.act("power-saving");
    let id = made["id"].as_str().unwrap().to_owned();
    let first = &made["steps"][0];
    assert_eq!(
        (first["action"].as_str(), first["host"].as_str()),
        (Some("on"), Some("kvm2")),
        "{made:#}"
    );
    p.until("the plan is over", |room| is_over(room, &id));
    let ended = plan(&p.room, &id);
    let steps = ended["steps"].as_array().unwrap();
    assert_eq!(steps[0]["state"], "failed", "{ended:#}");
    assert!(
        steps[0]["message"]
            .as_str()
            .unwrap()
            .contains("did not come up"),
        "{ended:#}"
    );
    assert_eq!(
        (steps[1]["host"].as_str(), steps[1]["state"].as_str()),
        (Some("kvm3"), Some("done")),
        "{ended:#}"
    );
    let hosts = p.room.get("hosts");
    let kvm2 = &hosts[1];
    assert_eq!(kvm2["power"]["state"], "off", "{kvm2}");
    assert!(
        kvm2["power"]["failure"]
            .as_str()
            .unwrap()
            .contains("did not come up"),
        "{kvm2}"
    );
    // It is left alone until somebody looked at it.
    let again = p.room.send("POST", "plans", json!({})).expect("plan");
    assert!(
        again["steps"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["host"] != "kvm2"),
        "{again:#}"
    );
}

#[test]
fn a_host_with_a_desktop_on_it_is_not_switched_off() {
    let mut p = Powered::new(3, 20);
    p.room.order("start", json!({}));
    let (status, body) = p
        .room
        .send("POST", "hosts/kvm1/power/off", json!({}))
        .expect_err("it is not empty");
    assert_eq!(status, 409, "{body}");
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("1 desktops are on it"),
        "{body}"
    );
    let (status, _) = p
        .room
        .send("POST", "hosts/kvm1/power/on", json!({}))
        .expect_err("it is on");
    assert_eq!(status, 409);
    // Nothing that the page may not know is shown.
    let setup = json!({"setup": {"method": {"by": "ipmi", "address": "127.0.0.1:1", "user": "admin"}},
        "password": "very-s3cret"});
    p.room
        .send("PUT", "hosts/kvm1/power", setup)
        .expect("setup");
    let shown = p.room.get("hosts/kvm1/power");
    assert_eq!(shown["has_password"], true);
    let audit = p.room.get("audit");
    for text in [shown.to_string(), audit.to_string()] {
        assert!(!text.contains("very-s3cret"), "{text}");
    }
    for bad in [
        json!({"setup": {"method": {"by": "command", "name": "rm"}}}),
        json!({"setup": {"method": {"by": "wake_on_lan", "mac": "nonsense"}}}),
        json!({"setup": {"method": {"by": "redfish", "url": "file:///etc", "user": "a"}}}),
        json!({"setup": {"watts": -1.0}}),
    ] {
        let (status, body) = p
            .room
            .send("PUT", "hosts/kvm1/power", bad.clone())
            .expect_err("refused");
        assert!(matches!(status, 400 | 422), "{bad} {status} {body}");
    }
}

#[test]
fn hosts_are_woken_for_a_class_and_its_desktops_are_there_at_the_bell() {
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let mut p = Powered::new(12, 20);
    p.already_off(&["kvm2", "kvm3"]);
    p.room
        .send(
            "PATCH",
            "timetable/rules",
            json!({"zone": "UTC", "lead_floor_minutes": 5, "hosts_before_minutes": 10}),
        )
        .expect("rules");
    let lesson =
        json!({"course": p.room.course(), "weekday": "mon", "begin": "08:10", "end": "10:00"});
    p.room
        .send("POST", "timetable/lessons", lesson)
        .expect("lesson");
    p.allocation(true, json!({}));
    // Until a slow machine is up.
    let mut settings = p.room.get("allocation")["settings"].clone();
    settings["wake_timeout_s"] = json!(600);
    p.room
        .send("PUT", "allocation", settings)
        .expect("allocation");

    p.room.set_clock(at("2027-03-01T07:50:00Z"));
    assert_eq!(p.room.get("timetable/now")["seats_wanted"], 0);
    assert_eq!(on(&p.room), 1, "nobody wants them yet");
    // Twelve want seats, and one host has ten.
    p.room.set_clock(at("2027-03-01T07:55:30Z"));
    p.until("a host more is on", |room| on(room) >= 2);
    let plans = p.room.get("plans");
    let woke = plans["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|plan| plan["steps"][0]["action"] == "on")
        .unwrap();
    assert!(woke["ordered_by"].is_null(), "{woke:#}");
    assert!(
        woke["mode_reason"]
            .as_str()
            .unwrap()
            .contains("the timetable says so"),
        "{woke:#}"
    );
    p.room.set_clock(at("2027-03-01T08:05:30Z"));
    p.until("the class is there", |room| {
        let desktops = room.desktops();
        desktops.len() == 12 && desktops.iter().all(|d| d["phase"] == "running")
    });
    p.room.check_one_machine_each(12);
    let power = power_of(&p.room);
    for d in p.room.desktops() {
        assert_eq!(power[d["host"].as_str().unwrap()], "on", "{d}");
    }
}

#[test]
fn plans_leave_a_pinned_desktop_where_it_is_and_a_person_does_not() {
    let mut p = Powered::new(3, 20);
    p.room.order("start", json!({}));
    p.allocation(false, json!({}));
    let pinned: Vec<Value> = p
        .room
        .desktops()
        .into_iter()
        .filter(|d| d["host"] != "kvm1")
        .collect();
    for d in &pinned {
        let path = format!("desktops/{}/pin", d["id"].as_str().unwrap());
        p.room.send("PUT", &path, json!({})).expect("pin");
        p.room.send("PUT", &path, json!({})).expect("pin twice");
    }
    let shown = p.room.desktops();
    assert_eq!(shown.iter().filter(|d| d["pinned"] == true).count(), 2);
    // Only the other one can be moved, so only its host can be empty.
    let plan = p.room.send("POST", "plans", json!({})).expect("plan");
    let steps = plan["steps"].as_array().unwrap();
    for step in steps {
        assert!(
            pinned.iter().all(|d| d["id"] != step["desktop"]),
            "{plan:#}"
        );
        assert!(
            step["action"] != "off" || step["host"] == "kvm1",
            "{plan:#}"
        );
    }
    assert!(plan.to_string().contains("it is pinned"), "{plan:#}");
    let id = pinned[0]["id"].as_str().unwrap().to_owned();
    p.room.order_one(&id, "move");
    let moved = p.room.get(&format!("desktops/{id}"));
    assert_ne!(moved["host"], pinned[0]["host"], "a person's order");
    assert_eq!(moved["pinned"], true);
    let moves = p.room.get(&format!("moves?desktop={id}"));
    assert_eq!(moves["items"].as_array().unwrap().len(), 1, "{moves}");
    let (status, _) = p
        .room
        .send("GET", "moves?before=nonsense", json!({}))
        .expect_err("no place");
    assert_eq!(status, 422);
    for d in &pinned {
        let path = format!("desktops/{}/pin", d["id"].as_str().unwrap());
        p.room.send("DELETE", &path, json!({})).expect("unpin");
    }
    assert!(p.room.desktops().iter().all(|d| d["pinned"] == false));
}

#[test]
fn what_is_measured_is_given_to_prometheus_and_to_nobody_without_its_token() {
    let mut p = Powered::new(3, 20);
    p.room.order("start", json!({}));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = |token: Option<&str>| {
        let request = http.get(format!("http://{}/metrics", p.room.page()));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        p.room.run(async {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    };
    let (status, text) = ask(None);
    assert_eq!(status, 401, "{text}");
    assert_eq!(ask(Some("")).0, 401);
    assert_eq!(ask(Some("another")).0, 401);
    let file = p.room.path("controller").join("metrics-token");
    let token = std::fs::read_to_string(file).unwrap();
    let (status, text) = ask(Some(token.trim()));
    assert_eq!(status, 200, "{text}");
    for host in ["kvm1", "kvm2", "kvm3"] {
        let line = format!("lyceum_host_up{{host=\"{host}\"}} 1");
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
    // Every line is one that Prometheus reads, and each family is told once.
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.to_owned()), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("lyceum_"), "{line}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    assert!(families.len() > 5, "{text}");
}
