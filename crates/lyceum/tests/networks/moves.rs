//! Moves of real machines over real taps, while connections are open.

use crate::guest::Guest;
use crate::guests::School;
use crate::world::{World, say, sh, until, within};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Moves of each kind.
const MOVES: usize = 2;
/// Where the server outside says back what it is told.
const ECHO: u16 = 9000;
/// EtherType of what QEMU announces a machine with that has moved.
const REVERSE_ARP: u16 = 0x8035;

/// Connections to the server outside: the numbers that came over each.
pub type Came = Arc<Mutex<Vec<Vec<u64>>>>;

/// The server outside says back what it is told, line by line.
fn echo(world: &World) -> Came {
    let came = Came::default();
    let socket = within(&world.name("net"), || {
        TcpListener::bind(("::", ECHO)).unwrap()
    });
    let all = came.clone();
    std::thread::spawn(move || {
        for client in socket.incoming().flatten() {
            let all = all.clone();
            let n = {
                let mut all = all.lock().unwrap();
                all.push(Vec::new());
                all.len() - 1
            };
            std::thread::spawn(move || {
                let mut back = client.try_clone().unwrap();
                for line in BufReader::new(client).lines().map_while(Result::ok) {
                    all.lock().unwrap()[n].extend(line.trim().parse::<u64>().ok());
                    let _ = writeln!(back, "{line}");
                }
            });
        }
    });
    came
}

/// Announcements of machines that have moved, as they come out of a device: the cards' addresses.
fn announcements(world: &World, n: &str, device: &str) -> Receiver<String> {
    let device = device.to_owned();
    let socket = within(&world.name(n), move || {
        let index = nix::net::if_::if_nametoindex(device.as_str()).unwrap();
        let protocol = REVERSE_ARP.to_be();
        // SAFETY: plain system calls; the address is a whole sockaddr_ll that lives during the call.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol));
            assert!(fd >= 0, "a raw socket");
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = index as i32;
            let length = std::mem::size_of_val(&address) as u32;
            assert_eq!(
                libc::bind(fd, std::ptr::addr_of!(address).cast(), length),
                0
            );
            OwnedFd::from_raw_fd(fd)
        }
    });
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut frame = [0u8; 128];
        // SAFETY: reads into an array of that size.
        while unsafe {
            libc::recv(
                socket.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                0,
            )
        } >= 14
        {
            let mac: Vec<String> = frame[6..12].iter().map(|b| format!("{b:02x}")).collect();
            if tell.send(mac.join(":")).is_err() {
                return;
            }
        }
    });
    told
}

/// Moves of real machines over real taps, with connections through them.
pub fn moves(school: &mut School) -> Came {
    let came = echo(&school.world);
    let world = &school.world;
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
    school.guest("ann").does(
        world,
        &format!("({count}) 2>/dev/null | nc 198.51.100.80 {ECHO} >/tmp/back 2>&1 & sleep 1"),
    );
    school.guest("ann").does(
        world,
        "sleep 100000 | nc -l -p 9001 >/tmp/in 2>&1 & sleep 1",
    );
    let ann4 = school.guest("ann").v4;
    school.guest("bob").does(
        world,
        &format!("until ({count}) 2>/dev/null | nc {ann4} 9001; do sleep 1; done & sleep 1"),
    );
    let segment = school.guest("ann").segment;
    let seen = announcements(world, "login", &format!("lyb{segment}"));

    let said = |guest: &Guest, file: &str| -> u64 {
        let out = guest.does(
            world,
            &format!("awk 'NR!=$1{{bad=1}} END{{print NR, bad+0}}' {file}"),
        );
        let (n, bad) = out.trim().split_once(' ').unwrap();
        assert_eq!(bad, "0", "{file} is not whole: {out}");
        n.parse().unwrap()
    };
    let outside = || {
        let all = came.lock().unwrap();
        assert_eq!(all.len(), 1, "one connection, the first");
        assert!(
            all[0].iter().copied().eq(1..=all[0].len() as u64),
            "in order and whole"
        );
        all[0].len() as u64
    };
    until("both connections are up", || {
        (!came.lock().unwrap().is_empty()
            && outside() > 3
            && said(&school.guests["ann"], "/tmp/in") > 3)
            .then_some(())
    });

    for turn in 0..2 * MOVES {
        let who = if turn % 2 == 0 { "ann" } else { "bob" };
        let to = if school.guests[who].host == "h1" {
            "h2"
        } else {
            "h1"
        };
        let from = school.guests[who].host.clone();
        let (mac, v4) = (school.guests[who].mac.clone(), school.guests[who].v4);
        while seen.try_recv().is_ok() {}
        school
            .guests
            .get_mut(who)
            .unwrap()
            .goes_to(&school.world, to);
        // It was announced, so switches know at once, whatever the guest has to say.
        until("the announcement of the move", || {
            seen.recv_timeout(Duration::from_secs(1))
                .ok()
                .filter(|m| *m == mac)
        });
        let ns = school.world.name("login");
        let at = if to == "h1" {
            "192.0.2.11"
        } else {
            "192.0.2.12"
        };
        until("the gateway knows where it is", || {
            let known = sh(&format!(
                "ip netns exec {ns} bridge fdb show dev lyx{segment}"
            ));
            known
                .lines()
                .any(|l| l.starts_with(&mac) && l.contains(at))
                .then_some(())
        });
        // Its rules and its tap are there, and no longer here.
        for (host, there) in [(to, true), (from.as_str(), false)] {
            let ns = school.world.name(host);
            until("rules follow", || {
                let cards = sh(&format!(
                    "ip netns exec {ns} nft list set bridge lyceum-host cards"
                ));
                let links = sh(&format!("ip -n {ns} -o link show"));
                let tap = format!("lyt{}", mac.replace(':', ""));
                (cards.contains(&mac) == there && links.contains(&tap) == there).then_some(())
            });
        }
        let world = &school.world;
        let have = school.guests[who].does(world, "ip -4 -o address show dev eth0");
        assert!(have.contains(&format!("{v4}/22")), "{have}");
        let (before_out, before_in) = (outside(), said(&school.guests["ann"], "/tmp/in"));
        until("the connection to the outside goes on", || {
            (outside() > before_out + 10).then_some(())
        });
        until("the connection from a neighbour goes on", || {
            (said(&school.guests["ann"], "/tmp/in") > before_in + 10).then_some(())
        });
        assert!(
            said(&school.guests["ann"], "/tmp/back") > 0,
            "and in the other direction"
        );
        say(&format!(
            "{who} moved to {to}: announced, known, connections whole"
        ));
    }
    for n in ["ann", "bob"] {
        school.guests[n].does(&school.world, "killall nc; killall sleep; true");
    }
    came
}

/// The desktop talks to the server outside from now on.
pub fn talks(school: &School, who: &str, came: &Came) {
    let before = came.lock().unwrap().len();
    let line = format!(
        "(i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done) 2>/dev/null | nc 198.51.100.80 {ECHO} >/dev/null 2>&1 & sleep 1"
    );
    school.guest(who).does(&school.world, &line);
    until("it is heard", || {
        (came.lock().unwrap().len() > before).then_some(())
    });
}

/// It is still heard, over the same connection, and nothing is missing.
pub fn is_heard(came: &Came, when: &str) {
    let count = || {
        let all = came.lock().unwrap();
        let last = all.last().expect("there was one");
        assert!(
            last.iter().copied().eq(1..=last.len() as u64),
            "{when}: in order and whole"
        );
        (all.len(), last.len())
    };
    let before = count();
    until(&format!("{when}: the connection goes on"), || {
        let now = count();
        assert_eq!(now.0, before.0, "{when}: another connection");
        (now.1 > before.1 + 10).then_some(())
    });
    say(&format!("{when}: a connection goes on"));
}
