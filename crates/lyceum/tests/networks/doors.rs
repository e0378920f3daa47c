//! The firewall by person, through controller and gateway as they are run. Machines are simulated here:
//! doors are about who sits where.

use crate::person::{Person, block_within, knock, opens, trust};
use crate::world::{World, attempt, ip, possible, say, sh, until};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// A class.
const CLASS: usize = 60;
/// Its course.
const COURSE: &str = "Networks";

/// Where the student of that number sits: outside, each at an address of his own.
fn seat(n: usize) -> IpAddr {
    IpAddr::from([198, 51, 100, 100 + n as u8])
}

struct Doors {
    began: Instant,
    world: World,
    course: String,
    links: BTreeMap<String, String>,
    tls: TlsConnector,
}

impl Doors {
    fn new() -> Doors {
        let began = Instant::now();
        let world = World::new(&["h1"], true);
        let s = world.name("s");
        let seats: String = (0..CLASS)
            .map(|n| format!("address add {}/24 dev wire0\n", seat(n)))
            .collect();
        std::fs::write(world.path("seats"), seats).unwrap();
        sh(&format!(
            "ip -n {s} -batch {}",
            world.path("seats").display()
        ));
        let others = ["two", "three", "six", "behind", "liar"].map(String::from);
        let class = (0..CLASS).map(|n| format!("s{n}"));
        let roster: String = class
            .chain(others)
            .map(|login| format!("{login},Student {login},student\n"))
            .collect();
        let file = world.path("roster.csv");
        std::fs::write(&file, format!("login,name,role\n{roster}")).unwrap();
        let made = world.json(&["course", "create", COURSE, "--image", "Tiny"]);
        let file = file.to_str().unwrap();
        let change = world.json(&[
            "course",
            "roster",
            "import",
            COURSE,
            file,
            "--create-accounts",
        ]);
        let links = change["links"].as_array().unwrap().iter();
        let links = links.map(|l| {
            let text = |key: &str| l[key].as_str().unwrap().to_owned();
            (text("login"), text("path"))
        });
        Doors {
            began,
            course: made["id"].as_str().unwrap().to_owned(),
            links: links.collect(),
            tls: trust(&world),
            world,
        }
    }

    fn sign_in(&mut self, login: &str, n: &str, from: IpAddr, header: &'static str) -> Person {
        let (tls, link) = (self.tls.clone(), self.links.remove(login).unwrap());
        let ns = self.world.name(n);
        block_within(&ns, Person::sign_in(tls, from, link, header))
    }

    fn desktop(&self, order: &str, login: &str) {
        self.world
            .text(&["desktop", order, &format!("{COURSE}/{login}"), "--no-wait"]);
    }

    fn knock(&self, n: &str, from: IpAddr) -> bool {
        block_within(&self.world.name(n), knock(from))
    }

    fn comes_to(&self, n: &str, from: &str, open: bool) {
        let from = ip(from);
        let word = if open { "opens" } else { "closes" };
        until(&format!("the door for {from} {word}"), || {
            (self.knock(n, from) == open).then_some(())
        });
    }

    /// Who may come and who may not, by now.
    fn is_as_it_was(&self, when: &str) {
        say(&format!(
            "{when}, after {:.0} s",
            self.began.elapsed().as_secs_f64()
        ));
        // The way there may be slow here, but it is open.
        let open = (0..20).any(|_| self.knock("s", seat(0)));
        assert!(open, "{when}: closed for who may come");
        std::thread::scope(|scope| {
            for (n, from, who) in [
                ("s", seat(1), "who signed out"),
                ("t", ip("198.51.100.12"), "anybody"),
                ("t", ip("2001:db8:2::12"), "anybody, by IPv6"),
                ("s", ip("2001:db8:2::11"), "another address"),
            ] {
                scope.spawn(move || assert!(!self.knock(n, from), "{when}: open for {who}"));
            }
        });
    }
}

#[test]
fn doors_open_for_those_who_may_come() {
    if !possible() {
        return;
    }
    let mut d = Doors::new();
    let s = d.world.name("s");
    d.world.settled();

    // A class signs in, each from a place of his own, and stands before closed doors.
    let links: Vec<String> = (0..CLASS)
        .map(|n| d.links.remove(&format!("s{n}")).unwrap())
        .collect();
    let tls = d.tls.clone();
    let people: Vec<Person> = block_within(&s, async move {
        let all = links.into_iter().enumerate();
        join_all(all.map(|(n, link)| Person::sign_in(tls.clone(), seat(n), link, ""))).await
    });
    assert!(!d.knock("s", seat(0)), "nothing runs yet");

    // It starts at once: from the order until everybody's own connection is let in.
    let order = format!("courses/{}/start", d.course);
    let class = std::thread::spawn(move || {
        let began = Instant::now();
        (
            began,
            block_within(&s, async move {
                join_all((0..CLASS).map(|n| opens(seat(n)))).await
            }),
        )
    });
    let began = Instant::now();
    let (status, said) = d.world.api("POST", &order, "{}").unwrap();
    assert_eq!(status, 202, "{said}");
    let answered = began.elapsed();
    let (before, opened) = class.join().unwrap();
    let began = began.max(before);
    let mut took: Vec<u128> = opened.iter().map(|at| (*at - began).as_millis()).collect();
    took.sort_unstable();
    say(&format!(
        "{CLASS} desktops ordered at once: rule open after {} ms (first), {} ms (median), {} ms (last); the order was answered after {} ms",
        took[0],
        took[CLASS / 2],
        took[CLASS - 1],
        answered.as_millis()
    ));

    // Whoever signs out has no door, nor who never had one.
    let (status, _, said) = block_within(&d.world.name("s"), {
        let one = people[1].clone();
        async move { one.request("DELETE", "session", "").await }
    });
    assert_eq!(status, 204, "{said}");
    d.comes_to("s", &seat(1).to_string(), false);
    d.is_as_it_was("at first");

    // Each part is killed, and comes back; doors are what they were all the time.
    for part in ["gateway", "controller", "h1"] {
        d.world.kill(part);
        d.is_as_it_was(&format!("without {part}"));
        if part == "gateway" {
            // As after a crash of the machine: nothing is in force, until it is there again.
            let login = d.world.name("login");
            sh(&format!(
                "ip netns exec {login} nft delete table inet lyceum-gateway"
            ));
        }
        d.world.start(part);
        d.world.wait_for_parts();
        d.world.settled();
        d.is_as_it_was(&format!("after {part} was killed"));
    }

    two_behind_one_address(&mut d);
    the_schools_proxy(&mut d);
    ipv6_only(&mut d);
    changed_by_hand(&d);
    d.is_as_it_was("after changes by hand");
    nft_is_missing(&mut d);
    d.is_as_it_was("after nft was missing");

    // The class is over.
    d.world.text(&["course", "stop", COURSE, "--no-wait"]);
    d.comes_to("s", &seat(0).to_string(), false);
    d.comes_to("s", &seat(CLASS - 1).to_string(), false);
}

/// Two people behind one NAT.
fn two_behind_one_address(d: &mut Doors) {
    let t = ip("198.51.100.12");
    d.sign_in("two", "t", t, "");
    d.sign_in("three", "t", t, "");
    d.comes_to("t", "198.51.100.12", true);
    d.desktop("stop", "two");
    d.world.settled();
    assert!(d.knock("t", t), "the other's is open still");
    d.desktop("stop", "three");
    d.comes_to("t", "198.51.100.12", false);
}

/// Its header is believed when it comes from there, and from nobody else.
fn the_schools_proxy(d: &mut Doors) {
    let header = "X-Forwarded-For: 10.1.2.3, 198.51.100.12\r\n";
    d.sign_in("behind", "proxy", ip("198.51.100.70"), header);
    d.comes_to("t", "198.51.100.12", true);
    assert!(
        !d.knock("proxy", ip("198.51.100.70")),
        "the proxy itself has none"
    );
    d.desktop("stop", "behind");
    d.comes_to("t", "198.51.100.12", false);
    // Somebody who would open it for others.
    d.sign_in(
        "liar",
        "net",
        ip("198.51.100.80"),
        "X-Forwarded-For: 198.51.100.12\r\n",
    );
    d.comes_to("net", "198.51.100.80", true);
    assert!(
        !d.knock("t", ip("198.51.100.12")),
        "anybody opens it for anybody"
    );
    d.desktop("stop", "liar");
    d.comes_to("net", "198.51.100.80", false);
}

fn ipv6_only(d: &mut Doors) {
    d.sign_in("six", "six", ip("2001:db8:2::66"), "");
    d.comes_to("six", "2001:db8:2::66", true);
    d.desktop("stop", "six");
    d.comes_to("six", "2001:db8:2::66", false);
}

/// Somebody with rights on the login server is noticed, undone, and told of.
fn changed_by_hand(d: &Doors) {
    let login = d.world.name("login");
    let ours = || {
        let audit = d.world.get("audit");
        let all = audit["items"].as_array().unwrap().iter();
        let last = all
            .filter(|e| e["action"] == "network.repaired")
            .map(|e| e["id"].as_i64());
        last.max().flatten().unwrap_or_default()
    };
    for (change, n, from, open) in [
        (
            "nft add element inet lyceum-gateway doors4 '{ 198.51.100.12 }'",
            "t",
            "198.51.100.12",
            false,
        ),
        (
            "nft flush chain inet lyceum-gateway comes_in",
            "t",
            "198.51.100.12",
            false,
        ),
        (
            "nft insert rule inet lyceum-gateway comes_in tcp dport 8473 drop",
            "s",
            "198.51.100.100",
            true,
        ),
        (
            "nft delete table inet lyceum-gateway",
            "t",
            "2001:db8:2::12",
            false,
        ),
    ] {
        let before = ours();
        sh(&format!("ip netns exec {login} {change}"));
        d.comes_to(n, from, open);
        until(&format!("{change} is in the audit log"), || {
            (ours() > before).then_some(())
        });
    }
    let said = d.world.text(&["network", "show"]);
    assert!(said.contains("put right"), "{said}");
    let shown = d.world.get("network");
    assert!(
        shown["repaired"]
            .as_str()
            .is_some_and(|r| r.contains("firewall")),
        "{shown}"
    );
    // A host says so, too.
    let host = d.world.name("h1");
    sh(&format!(
        "ip netns exec {host} nft delete table bridge lyceum-host"
    ));
    until("the host says that its rules were gone", || {
        let shown = d.world.get("network");
        let what = shown["hosts"][0]["repaired"].as_str()?;
        what.contains("gone").then_some(())
    });
    until("it is in the audit log", || {
        let audit = d.world.get("audit");
        let mut all = audit["items"].as_array()?.iter();
        all.any(|e| e["action"] == "network.repaired" && e["target"] == "host/h1")
            .then_some(())
    });
}

/// A login server without nft: what was in force stays, it is said, and goes on when nft is there.
fn nft_is_missing(d: &mut Doors) {
    let pid = d.world.pid("gateway");
    let (all, some) = (d.world.path("sbin-all"), d.world.path("sbin-some"));
    std::fs::create_dir_all(&all).unwrap();
    std::fs::create_dir_all(&some).unwrap();
    for entry in std::fs::read_dir("/usr/sbin").unwrap().flatten() {
        if entry.file_name() != "nft" {
            std::os::unix::fs::symlink(all.join(entry.file_name()), some.join(entry.file_name()))
                .unwrap();
        }
    }
    // `ip netns exec` gave the gateway mounts of its own.
    let inside = format!("nsenter --target {pid} --mount");
    sh(&format!(
        "{inside} mount --make-rprivate / && {inside} mount --bind /usr/sbin {} && {inside} mount --bind {} /usr/sbin",
        all.display(),
        some.display()
    ));
    let problem = || {
        let network = d.world.get("network");
        network["problem"].as_str().unwrap_or_default().to_owned()
    };
    until("it is said that nft is missing", || {
        problem().contains("nft is not here").then_some(())
    });
    let said = d.world.text(&["network", "show"]);
    assert!(said.contains("nftables"), "with its cure: {said}");
    d.is_as_it_was("without nft");
    // It goes on being said for as long as it is so, also when there is something new to do.
    d.desktop("stop", "s2");
    for _ in 0..20 {
        assert!(problem().contains("nft is not here"), "{:?}", problem());
        std::thread::sleep(Duration::from_millis(100));
    }
    sh(&format!("{inside} umount /usr/sbin"));
    let _ = attempt(&format!("{inside} umount {}", all.display()));
    d.world.settled();
    d.comes_to("s", &seat(2).to_string(), false);
}
