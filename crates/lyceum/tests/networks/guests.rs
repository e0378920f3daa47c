//! Real guests in their courses' networks: addresses, names, who reaches whom, and moves under connections that
//! are open. `make test-networks`.

use crate::guest::Guest;
use crate::world::{DEADLINE, LOGIN4, LOGIN6, PORT, World, ip, possible, reaches, say, sh, until};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How far out desktops of course A get.
#[derive(Clone, Copy)]
enum Out {
    Everywhere,
    Nowhere,
    /// To the first server only.
    Server,
}

pub struct School {
    pub world: World,
    pub guests: BTreeMap<&'static str, Guest>,
    places: Vec<(&'static str, IpAddr)>,
    out: Out,
    among: bool,
}

impl School {
    fn new() -> School {
        let world = World::new(&["h1", "h2"], false);
        for (course, people) in [("A", &["ann", "bob"][..]), ("B", &["dee"])] {
            world.json(&["course", "create", course, "--image", "Tiny"]);
            for login in people {
                world.json(&["user", "create", login]);
                world.json(&["course", "roster", "add", course, login]);
            }
        }
        world.json(&[
            "network",
            "course",
            "A",
            "--internet",
            "on",
            "--among-themselves",
            "yes",
        ]);
        world.json(&["network", "course", "B", "--internet", "off"]);
        for course in ["A", "B"] {
            world.json(&["course", "start", course]);
        }
        let mut guests = BTreeMap::new();
        for (login, course, host) in [("ann", "A", "h1"), ("bob", "A", "h2"), ("dee", "B", "h1")] {
            let mut guest = Guest::find(&world, course, login);
            guest.wake(&world);
            if guest.host != host {
                guest.goes_to(&world, host);
            }
            guest.does(
                &world,
                "mkdir /tmp/www; echo hello >/tmp/www/index.html; httpd -p 7777 -h /tmp/www",
            );
            guests.insert(login, guest);
        }
        let mut places = Vec::new();
        let mut at = |n, v4: &str, v6: &str| {
            places.push((n, ip(v4)));
            places.push((n, ip(v6)));
        };
        at("h1", "192.0.2.11", "2001:db8:1::11");
        at("h2", "192.0.2.12", "2001:db8:1::12");
        at("login", "192.0.2.10", "2001:db8:1::10");
        at("in", "192.0.2.21", "2001:db8:1::21");
        at("s", "198.51.100.11", "2001:db8:2::11");
        at("net", "198.51.100.80", "2001:db8:2::80");
        at("net2", "198.51.100.81", "2001:db8:2::81");
        places.push(("login", IpAddr::from(LOGIN4)));
        places.push(("login", ip(LOGIN6)));
        for (n, guest) in &guests {
            places.extend(guest.addresses().map(|a| (*n, a)));
        }
        School {
            world,
            guests,
            places,
            out: Out::Everywhere,
            among: true,
        }
    }

    pub fn guest(&self, n: &str) -> &Guest {
        &self.guests[n]
    }

    /// Whether a desktop reaches a place.
    fn allowed(&self, from: &str, to: &str) -> bool {
        match (from, to) {
            (_, "h1" | "h2" | "login" | "in") | ("dee", _) | (_, "dee") => false,
            (_, "ann" | "bob") => self.among,
            (_, to) => match self.out {
                Out::Everywhere => true,
                Out::Nowhere => false,
                Out::Server => to == "net",
            },
        }
    }

    /// What is not as it should be, of all pairs in both directions and families.
    fn look(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut asked = Vec::new();
        for (n, guest) in &self.guests {
            let to: Vec<_> = self.places.iter().filter(|(to, _)| to != n).collect();
            let tries: String = to
                .iter()
                .enumerate()
                .map(|(i, (_, a))| {
                    format!(
                        "({} >/dev/null 2>&1 && echo {i} yes || echo {i} no) & ",
                        get(*a, "")
                    )
                })
                .collect();
            let command = format!("{tries}wait");
            guest.begin(&self.world, &command);
            asked.push((n, guest, to, command));
        }
        for (n, guest, to, command) in asked {
            let (_, out) = guest.end(&self.world, &command);
            let mut answers: BTreeMap<usize, bool> = BTreeMap::new();
            for line in out.lines() {
                let mut words = line.split_whitespace();
                if let (Some(Ok(i)), Some(word)) = (words.next().map(str::parse), words.next()) {
                    answers.insert(i, word == "yes");
                }
            }
            assert_eq!(answers.len(), to.len(), "{out}");
            for (i, (name, address)) in to.iter().enumerate() {
                if answers[&i] != self.allowed(n, name) {
                    let word = if answers[&i] {
                        "reaches"
                    } else {
                        "does not reach"
                    };
                    wrong.push(format!("{n} {word} {name} ({address})"));
                }
            }
        }
        // Nobody comes in from outside; that the guests do answer their own is above.
        let mut threads = Vec::new();
        for from in ["h1", "h2", "login", "in", "s", "net"] {
            for guest in self.guests.values() {
                for address in guest.addresses() {
                    // The gateway itself is where its rules don't reach: it may ask desktops, and nothing there does.
                    if from == "login" {
                        continue;
                    }
                    let (ns, to) = (self.world.name(from), SocketAddr::new(address, PORT));
                    threads.push((
                        from,
                        to,
                        std::thread::spawn(move || reaches(&ns, to, Duration::from_secs(2))),
                    ));
                }
            }
        }
        for (from, to, thread) in threads {
            if thread.join().unwrap() {
                wrong.push(format!("{from} reaches {to}"));
            }
        }
        wrong
    }

    /// What was ordered holds soon.
    fn becomes(&mut self, what: &str, out: Out, among: bool) {
        (self.out, self.among) = (out, among);
        let began = Instant::now();
        self.world.settled();
        loop {
            let wrong = self.look();
            if wrong.is_empty() {
                break;
            }
            let late = began.elapsed() > DEADLINE;
            assert!(!late, "{what}:\n{}", wrong.join("\n"));
        }
        say(&format!(
            "{what}: all pairs as they should be, after {} s",
            began.elapsed().as_secs()
        ));
    }

    /// Nothing is open that was not, at no time. What is emulated may be late with what is open.
    fn is_as_it_was(&self, what: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            let wrong = self.look();
            let open: Vec<_> = wrong.iter().filter(|w| w.contains(" reaches ")).collect();
            assert!(open.is_empty(), "{what}: {open:?}");
            if wrong.is_empty() {
                return say(&format!("{what}: all pairs as before"));
            }
            assert!(Instant::now() < end, "{what}:\n{}", wrong.join("\n"));
        }
    }
}

/// Asks there for a page, as a guest does it: its wget can't, built without name services.
fn get(from: IpAddr, page: &str) -> String {
    format!("printf 'GET /{page} HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {from} {PORT} | grep .")
}

#[test]
#[ignore = "real guests, several minutes: make test-networks"]
fn guests_in_their_courses_networks() {
    if !possible() {
        return;
    }
    let mut school = School::new();
    names(&school);
    school.becomes("internet on, among themselves", Out::Everywhere, true);
    let size = school.guest("ann").does(
        &school.world,
        &format!("{} | wc -c", get(ip("198.51.100.80"), "big")),
    );
    assert!(
        size.trim().parse::<u64>().is_ok_and(|n| n > 2_000_000),
        "large packets get through: {size}"
    );

    let came = crate::moves::moves(&mut school);

    let w =
        |school: &School, args: &[&str]| drop(school.world.json(&[&["network"], args].concat()));
    w(
        &school,
        &[
            "course",
            "A",
            "--internet",
            "off",
            "--among-themselves",
            "no",
        ],
    );
    school.becomes("internet off, each alone", Out::Nowhere, false);
    w(
        &school,
        &[
            "course",
            "A",
            "--internet",
            "list",
            "--allow",
            "198.51.100.80",
            "--allow",
            "[2001:db8:2::80]:7777",
            "--among-themselves",
            "yes",
        ],
    );
    school.becomes("a list, among themselves", Out::Server, true);
    for _ in 0..2 {
        let ann = school.guests.get_mut("ann").unwrap();
        let host = if ann.host == "h1" { "h2" } else { "h1" };
        ann.goes_to(&school.world, host);
        school.is_as_it_was(&format!("after a move to {host}"));
    }
    w(&school, &["course", "A", "--internet", "on"]);
    w(&school, &["exam", "A", "--minutes", "60"]);
    school.becomes("an examination", Out::Server, false);

    // One that stays on the host whose agent is killed.
    if school.guest("bob").host != "h1" {
        school
            .guests
            .get_mut("bob")
            .unwrap()
            .goes_to(&school.world, "h1");
    }
    crate::moves::talks(&school, "bob", &came);
    for part in ["gateway", "controller", "h1"] {
        school.world.kill(part);
        crate::moves::is_heard(&came, &format!("without {part}"));
        // Guests are asked through controller and host.
        if part == "gateway" {
            school.is_as_it_was("without gateway");
        }
        school.world.start(part);
        school.world.wait_for_parts();
        school.is_as_it_was(&format!("after {part} was killed"));
        crate::moves::is_heard(&came, &format!("after {part} was killed"));
    }
    reboot_of_the_login_server(&mut school);
    changed_by_hand(&school);

    handed_out(&mut school);
    school.world.text(&["network", "exam-end", "A"]);
    school.becomes("after the examination", Out::Everywhere, true);
    allowed_names(&mut school);
}

/// Addresses came by DHCP (or there were no guests by now); names of the course resolve, others' do not.
fn names(school: &School) {
    let world = &school.world;
    let (ann, bob, dee) = (
        school.guest("ann"),
        school.guest("bob"),
        school.guest("dee"),
    );
    for guest in school.guests.values() {
        let have = guest.does(world, "ip -4 -o address show dev eth0");
        assert!(have.contains(&format!("{}/22", guest.v4)), "{have}");
        until("the address that its card makes", || {
            let have = guest.does(world, "ip -6 -o address show dev eth0 scope global");
            have.contains(&guest.v6.to_string()).then_some(())
        });
    }
    let asks = |who: &Guest, name: &str| who.run(world, &format!("nslookup {name}"));
    until("names of the course", || {
        let (well, said) = asks(ann, &format!("{}.lyceum.internal", bob.name));
        (well && said.contains(&bob.v4.to_string()) && said.contains(&bob.v6.to_string()))
            .then_some(())
    });
    let (well, said) = asks(ann, &format!("{}.lyceum.internal", dee.name));
    assert!(
        !well || !said.contains(&dee.v4.to_string()),
        "another course's: {said}"
    );
}

/// Nothing is left of the login server's network but what the gateway makes again.
fn reboot_of_the_login_server(school: &mut School) {
    let ns = school.world.name("login");
    school.world.kill("gateway");
    for pid in sh(&format!("ip netns pids {ns}")).lines() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "dnsmasq" {
            sh(&format!("kill -9 {pid}"));
        }
    }
    sh(&format!("ip netns exec {ns} nft flush ruleset"));
    for guest in ["ann", "dee"] {
        let n = school.guest(guest).segment;
        sh(&format!(
            "ip -n {ns} link del lyx{n}; ip -n {ns} link del lyb{n}"
        ));
    }
    let _ = std::fs::remove_dir_all(school.world.path("gateway"));
    school.world.start("gateway");
    school.world.settled();
    school.is_as_it_was("after a reboot of the login server's network");
}

/// A copy of a desktop is at its own address from the first frame on.
fn handed_out(school: &mut School) {
    school
        .world
        .json(&["user", "set", "ann", "--role", "teacher"]);
    school
        .world
        .json(&["course", "roster", "add", "A", "ann", "--teacher"]);
    school
        .world
        .json(&["course", "hand-out", "A", "--desktop", "A/ann"]);
    let mut bob = Guest::find(&school.world, "A", "bob");
    assert_eq!(bob.v4, school.guest("bob").v4, "it keeps its own");
    // What does commands there is ann's, copied.
    bob.counts_like(school.guest("ann"));
    let have = bob.does(&school.world, "ip -4 -o address show");
    let (own, hers) = (format!("{}/22", bob.v4), school.guest("ann").v4.to_string());
    assert!(have.contains(&own) && !have.contains(&hers), "{have}");
    school.guests.insert("bob", bob);
    school.is_as_it_was("after a hand-out");
}

/// A host's rules, too, are put right and told of.
fn changed_by_hand(school: &School) {
    let ns = school.world.name("h1");
    let (segment, hosts) = (school.guest("ann").segment, |n: &serde_json::Value| {
        n["hosts"].as_array().unwrap().clone()
    });
    for change in [
        "nft flush chain bridge lyceum-host desktop".to_owned(),
        "nft delete table bridge lyceum-host".to_owned(),
        format!("ip link set lyx{segment} down"),
    ] {
        let when =
            |all: &[serde_json::Value]| all.iter().filter_map(|h| h["repaired_at"].as_i64()).max();
        let before = when(&hosts(&school.world.get("network")));
        sh(&format!("ip netns exec {ns} {change}"));
        until(&format!("{change} is told of"), || {
            (when(&hosts(&school.world.get("network"))) > before).then_some(())
        });
        school.is_as_it_was(&format!("after {change}"));
    }
    let audit = school.world.text(&["audit", "-n", "200"]);
    assert!(
        audit.contains("network.repaired") && audit.contains("host/h1"),
        "{audit}"
    );
}

/// A list of names: what they lead to is open once somebody has asked for them.
fn allowed_names(school: &mut School) {
    let net = school.world.name("net");
    let mut upstream = std::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            &net,
            "dnsmasq",
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
        ])
        .args([
            "--pid-file=",
            "--conf-file=/dev/null",
            "--listen-address=198.51.100.80",
            "--bind-interfaces",
        ])
        .args([
            "--address=/allowed.test/198.51.100.81",
            "--address=/allowed.test/2001:db8:2::81",
        ])
        .args([
            "--address=/forbidden.test/198.51.100.80",
            "--log-facility=-",
        ])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    school.world.json(&[
        "network",
        "course",
        "A",
        "--internet",
        "list",
        "--allow",
        "allowed.test:7777",
    ]);
    school.world.settled();
    let (world, ann) = (&school.world, school.guest("ann"));
    let gets = |address: &str| {
        ann.run(world, &format!("{} >/dev/null", get(ip(address), "")))
            .0
    };
    assert!(!gets("198.51.100.81"), "before anybody asked for the name");
    until("the allowed name", || {
        ann.run(world, "nslookup www.allowed.test")
            .1
            .contains("198.51.100.81")
            .then_some(())
    });
    until("what it leads to", || {
        (gets("198.51.100.81") && gets("2001:db8:2::81")).then_some(())
    });
    assert!(
        !ann.run(world, "nslookup forbidden.test")
            .1
            .contains("198.51.100.80")
    );
    assert!(!gets("198.51.100.80"));
    let _ = upstream.kill();
    let _ = upstream.wait();
}
