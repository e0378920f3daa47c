//! A real guest that does what it is told. Its clipboard is a file, which goes by the helper's channel and not by
//! the network that is tried: a command is laid there, and its answer comes back the same way.

use crate::common::{find, type_on};
use crate::world::{DEADLINE, World, until};
use serde_json::{Value, json};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What had no effect for so long is typed again.
const TYPE_AGAIN: Duration = Duration::from_secs(20);
/// Does commands that begin with RUN and a number, one after the other, each once.
const AGENT: &str = r#"mkdir /tmp/agent || exit
(
while :; do
 w=; n=; c=
 read -r w n c </run/lyceum/clipboard
 if [ "$w" = RUN ]; then
  sh -c "$c" >/tmp/o 2>&1 </dev/null
  s=$?
  { echo "DONE $n $s"; cat /tmp/o; echo END; } >/tmp/p
  cp /tmp/p /run/lyceum/clipboard
 fi
 sleep 0.1
done
) >/dev/null 2>&1 &
echo "DONE 0 0
END" >/run/lyceum/clipboard
"#;

/// A desktop that runs, and the addresses that it should have.
pub struct Guest {
    pub id: String,
    pub host: String,
    pub name: String,
    pub mac: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub segment: u64,
    turn: Cell<u32>,
}

impl Guest {
    /// The running desktop of that person in that course.
    pub fn find(world: &World, course: &str, login: &str) -> Guest {
        let shown = world.json(&["desktop", "show", &format!("{course}/{login}")]);
        let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
        let network = world.json(&["network", "course", course]);
        let segment = network["segment"].as_u64().expect("it has a segment");
        let read = |kind: &str| {
            let file = world.path("gateway").join(format!("{segment}.{kind}"));
            std::fs::read_to_string(file).unwrap()
        };
        // What it said that it got; everything else follows.
        let v4: Ipv4Addr = text("address")
            .split('/')
            .next()
            .unwrap()
            .parse()
            .expect("an address by DHCP");
        let leases = read("leases");
        let lease = leases
            .lines()
            .map(|l| l.split(',').collect::<Vec<_>>())
            .find(|l| l[1] == v4.to_string())
            .expect("it has the address that was meant for it");
        let name = lease[2].to_owned();
        let v6 = read("names")
            .lines()
            .filter_map(|l| l.split_once(' '))
            .find_map(|(a, n)| a.parse::<Ipv6Addr>().ok().filter(|_| n == name))
            .expect("its IPv6 address");
        Guest {
            id: text("id"),
            host: text("host"),
            name,
            mac: lease[0].to_owned(),
            v4,
            v6,
            segment,
            turn: Cell::new(0),
        }
    }

    /// Its clipboard and all else are a copy of that one's.
    pub fn counts_like(&mut self, other: &Guest) {
        self.turn = other.turn.clone();
    }

    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    fn clipboard(&self, world: &World) -> Option<String> {
        let (status, body) = world
            .api("GET", &format!("desktops/{}/clipboard", self.id), "")
            .ok()?;
        (status == 200).then(|| body["text"].as_str().unwrap_or_default().to_owned())
    }

    /// While it moves, or the controller is away, it can't be said: tried until it is.
    fn lay(&self, world: &World, text: &str) {
        let (path, body) = (
            format!("desktops/{}/clipboard", self.id),
            json!({ "text": text }).to_string(),
        );
        until("something is laid into the clipboard", || {
            let (status, _) = world.api("PUT", &path, &body).ok()?;
            (status == 204).then_some(())
        });
    }

    /// Starts what does commands, by typing as a person would.
    pub fn wake(&self, world: &World) {
        let dir = world.path(&format!("run-{}", self.host));
        let mut sockets = Vec::new();
        find(&dir, "vnc.sock", &mut sockets);
        sockets.retain(|s| s.components().any(|c| c.as_os_str() == self.id.as_str()));
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        let end = Instant::now() + DEADLINE;
        loop {
            self.lay(world, AGENT);
            let _ = type_on(&sockets[0], "cp /run/lyceum/clipboard /tmp/a; sh /tmp/a");
            let again = Instant::now() + TYPE_AGAIN;
            while Instant::now() < again {
                if self
                    .clipboard(world)
                    .is_some_and(|said| said.starts_with("DONE 0 0"))
                {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            assert!(Instant::now() < end, "the guest does not hear");
        }
    }

    /// Does it in the guest: whether it went well, and what it printed.
    pub fn run(&self, world: &World, command: &str) -> (bool, String) {
        self.begin(world, command);
        self.end(world, command)
    }

    /// Tells the guest to do it.
    pub fn begin(&self, world: &World, command: &str) {
        assert!(!command.contains('\n'), "one line");
        self.turn.set(self.turn.get() + 1);
        self.lay(world, &format!("RUN {} {command}\n", self.turn.get()));
    }

    /// What came of it.
    pub fn end(&self, world: &World, command: &str) -> (bool, String) {
        let mark = format!("DONE {} ", self.turn.get());
        let said = until(command, || {
            let said = self.clipboard(world)?;
            let said = said.strip_prefix(&mark)?;
            Some(said.trim_end().strip_suffix("END")?.to_owned())
        });
        let (status, out) = said.split_once('\n').unwrap_or((said.trim(), ""));
        (status.trim() == "0", out.to_owned())
    }

    /// What it printed; it must go well.
    pub fn does(&self, world: &World, command: &str) -> String {
        let (well, out) = self.run(world, command);
        assert!(well, "{}: {command}: {out}", self.name);
        out
    }

    /// Sends it to that host while it runs.
    pub fn goes_to(&mut self, world: &World, host: &str) -> Value {
        world.json(&["desktop", "move", &self.id, "--to", host]);
        let shown = world.json(&["desktop", "show", &self.id]);
        assert_eq!(shown["host"], host, "{shown}");
        self.host = host.to_owned();
        shown
    }
}
