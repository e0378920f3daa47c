//! A classroom of network namespaces: hosts, gateway, a server outside, students, and desktops behind real
//! taps whose frames are carried into namespaces of their own.
//!
//! ```text
//!   d ~ tap ─ h1 ─┐            ┌─ net  (198.51.100.80, .81: servers outside)
//!                 ├─ sw ─ gw ─ wan ─ s  (198.51.100.11: a student)
//!   d ~ tap ─ h2 ─┘            └─ t  (198.51.100.12: another)
//! ```

use lyceum_edge::{GatewayEdge, HostEdge, Machine};
use lyceum_model::Hostname;
use lyceum_net::wanted::Uplink;
use lyceum_net::{
    Course, Door, GatewayNetwork, HostNetwork, Internet, LinkName, Mac, Net, Plug, Policy, Segment,
};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const PORT: u16 = 7777;
pub const NATIVE: u16 = 8473;
/// How long anything that is to happen may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Says why not, past the test's captured output, when namespaces can't be made here.
pub fn possible() -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        Some("this is not root".to_owned())
    } else if attempt("command -v nft && command -v dnsmasq && command -v bridge").is_err() {
        Some("nft, dnsmasq or bridge is missing (scripts/setup --test installs them)".into())
    } else {
        static TRIES: AtomicU32 = AtomicU32::new(0);
        let n = TRIES.fetch_add(1, Ordering::SeqCst);
        let name = format!("ly{}-try{n}", std::process::id());
        let made = attempt(&format!(
            "ip netns add {name} && ip -n {name} link add name br0 type bridge && ip -n {name} link add name vx0 type vxlan id 1 dstport 4789 local 127.0.0.1 && \
             ip netns exec {name} nft add table bridge t && ip -n {name} tuntap add dev tap0 mode tap"
        ));
        let _ = attempt(&format!("ip netns del {name}"));
        made.err().map(|said| format!("this kernel or container makes no namespaces with bridges, VXLAN, taps and nftables: {said}"))
    };
    match why {
        None => true,
        Some(why) => {
            let _ = writeln!(
                std::io::stderr(),
                "\nSKIPPED: tests of courses' networks in namespaces: {why}\n"
            );
            false
        }
    }
}

fn attempt(line: &str) -> Result<String, String> {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let out = Command::new("sh")
        .args(["-c", line])
        .env("PATH", path)
        .output()
        .expect("sh");
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
    }
}

pub fn sh(line: &str) -> String {
    attempt(line).unwrap_or_else(|said| panic!("{line}: {said}"))
}

/// Runs it in a namespace, on a thread of its own.
pub fn within<T: Send + 'static>(ns: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let ns = ns.to_owned();
    let thread = std::thread::spawn(move || {
        let file = File::open(format!("/run/netns/{ns}")).expect("namespace");
        nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        work()
    });
    thread.join().expect("the thread in the namespace")
}

mod tun {
    nix::ioctl_write_int!(set_iff, b'T', 202);
}

/// Opens a tap, which is made if it is not there.
pub fn open_tap(ns: &str, name: &LinkName) -> File {
    let name = name.to_string();
    within(ns, move || {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .expect("tun");
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        request[16..18].copy_from_slice(&0x5002u16.to_ne_bytes());
        // SAFETY: TUNSETIFF reads and writes a struct ifreq, which is 40 bytes, for the duration of the call.
        unsafe { tun::set_iff(file.as_raw_fd(), request.as_mut_ptr() as u64) }.expect("TUNSETIFF");
        file
    })
}

/// A desktop: a namespace whose card is connected to a tap on one host or another.
pub struct Desktop {
    pub plug: Plug,
    pub ns: String,
    card: Arc<File>,
    /// Frames are carried for the newest connection only.
    turn: Arc<AtomicU32>,
}

impl Desktop {
    pub fn v4(&self) -> IpAddr {
        self.plug.v4.into()
    }

    pub fn v6(&self) -> IpAddr {
        self.plug.segment.desktop6(self.plug.mac).into()
    }

    /// Connects its card to its tap on that host, and announces it as QEMU does after a move.
    pub fn connect(&self, host_ns: &str) {
        let tap = Arc::new(open_tap(host_ns, &self.plug.tap()));
        let turn = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
        let carry = |mut from: Arc<File>, mut to: Arc<File>, turns: Arc<AtomicU32>| {
            std::thread::spawn(move || {
                let mut frame = vec![0; 70_000];
                while let Ok(n) = from.as_ref_read(&mut frame) {
                    if n == 0 || turns.load(Ordering::SeqCst) != turn {
                        return;
                    }
                    // A port that is not up yet takes nothing: frames may be lost.
                    let _ = to.as_ref_write(&frame[..n]);
                }
            })
        };
        carry(tap.clone(), self.card.clone(), self.turn.clone());
        carry(self.card.clone(), tap.clone(), self.turn.clone());
        let mut announce = vec![0u8; 10];
        announce.extend([0xff; 6]);
        let mac: Vec<u8> = bytes(self.plug.mac);
        announce.extend(&mac);
        announce.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        announce.extend(&mac);
        announce.extend([0; 4]);
        announce.extend(&mac);
        announce.extend([0; 22]);
        let _ = tap.as_ref().write(&announce);
    }
}

trait Shared {
    fn as_ref_read(&mut self, into: &mut [u8]) -> std::io::Result<usize>;
    fn as_ref_write(&mut self, from: &[u8]) -> std::io::Result<usize>;
}

impl Shared for Arc<File> {
    fn as_ref_read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.as_ref().read(into)
    }
    fn as_ref_write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.as_ref().write(from)
    }
}

pub fn bytes(mac: Mac) -> Vec<u8> {
    let text = mac.to_string();
    text.split(':')
        .map(|p| u8::from_str_radix(p, 16).expect("digits"))
        .collect()
}

pub struct World {
    tag: String,
    pub dir: tempfile::TempDir,
    namespaces: Vec<String>,
    pub h1: HostEdge,
    pub h2: HostEdge,
    pub gw: Option<GatewayEdge>,
    pub host1: HostNetwork,
    pub host2: HostNetwork,
    pub gateway: GatewayNetwork,
}

pub fn segment(number: u32) -> Segment {
    let v4: Net = "10.128.0.0/9".parse().expect("net");
    let v6: Net = "fd4c:5943:4555::/48".parse().expect("net");
    Segment::within(number, &v4, &v6).expect("room")
}

pub fn plug(number: u32, n: u32) -> Plug {
    let segment = segment(number);
    Plug {
        segment,
        mac: format!("52:54:00:00:{number:02x}:{n:02x}")
            .parse()
            .expect("mac"),
        v4: segment.desktop4(n).expect("room"),
        among_themselves: false,
    }
}

fn host(n: u8) -> HostNetwork {
    HostNetwork {
        uplink: Uplink::Vxlan {
            address: IpAddr::from([192, 0, 2, n]),
        },
        members: [10, 11, 12].map(|n| IpAddr::from([192, 0, 2, n])).to_vec(),
        gateway_here: false,
        plugs: Vec::new(),
    }
}

impl World {
    /// Everything but desktops.
    pub async fn new(tag: &str) -> World {
        let tag = format!("ly{}{tag}", std::process::id());
        let name = |n: &str| format!("{tag}-{n}");
        let all = ["sw", "wan", "h1", "h2", "gw", "s", "t", "net"];
        let dir = tempfile::tempdir().expect("directory");
        // dnsmasq reads its files as a user of its own.
        sh(&format!("chmod 755 {}", dir.path().display()));
        let mut world = World {
            namespaces: Vec::new(),
            h1: HostEdge::new(Machine::namespace(&name("h1"))),
            h2: HostEdge::new(Machine::namespace(&name("h2"))),
            gw: None,
            host1: host(11),
            host2: host(12),
            gateway: GatewayNetwork {
                address: Some([192, 0, 2, 10].into()),
                members: [11, 12].map(|n| IpAddr::from([192, 0, 2, n])).to_vec(),
                protected: vec![
                    "192.0.2.0/24".parse().expect("net"),
                    "2001:db8:1::/64".parse().expect("net"),
                ],
                upstreams: vec![[198, 51, 100, 80].into()],
                courses: Vec::new(),
                native_ports: vec![NATIVE],
                doors: Vec::new(),
            },
            dir,
            tag: tag.clone(),
        };
        for ns in all {
            world.namespace(ns);
        }
        for switch in ["sw", "wan"] {
            let ns = name(switch);
            sh(&format!(
                "ip -n {ns} link add name br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 && ip -n {ns} link set br0 up"
            ));
        }
        // Cable, address in IPv4 and IPv6.
        for (switch, ns, dev, v4, v6) in [
            ("sw", "h1", "wire0", "192.0.2.11/24", "2001:db8:1::11/64"),
            ("sw", "h2", "wire0", "192.0.2.12/24", "2001:db8:1::12/64"),
            ("sw", "gw", "wire0", "192.0.2.10/24", "2001:db8:1::10/64"),
            ("wan", "gw", "wire1", "198.51.100.1/24", "2001:db8:2::1/64"),
            ("wan", "s", "wire0", "198.51.100.11/24", "2001:db8:2::11/64"),
            ("wan", "t", "wire0", "198.51.100.12/24", "2001:db8:2::12/64"),
            (
                "wan",
                "net",
                "wire0",
                "198.51.100.80/24",
                "2001:db8:2::80/64",
            ),
        ] {
            let (switch, ns) = (name(switch), name(ns));
            sh(&format!(
                "ip -n {ns} link add name {dev} type veth peer name p-{dev} && P=$(cat /proc/sys/kernel/random/uuid | cut -c1-8) && \
                 ip -n {ns} link set p-{dev} name $P && ip -n {ns} link set $P netns {switch} && ip -n {switch} link set $P master br0 up && \
                 ip -n {ns} address add {v4} dev {dev} && ip -n {ns} address add {v6} dev {dev} nodad && ip -n {ns} link set {dev} up"
            ));
        }
        // Everybody would find the desktops, were they let through.
        for (ns, v4, v6) in [
            ("h1", "192.0.2.10", "2001:db8:1::10"),
            ("h2", "192.0.2.10", "2001:db8:1::10"),
            ("s", "198.51.100.1", "2001:db8:2::1"),
            ("t", "198.51.100.1", "2001:db8:2::1"),
            ("net", "198.51.100.1", "2001:db8:2::1"),
        ] {
            let ns = name(ns);
            sh(&format!(
                "ip -n {ns} route add default via {v4} && ip -n {ns} -6 route add default via {v6}"
            ));
        }
        let ns = name("net");
        sh(&format!(
            "ip -n {ns} address add 198.51.100.81/24 dev wire0 && ip -n {ns} address add 2001:db8:2::81/64 dev wire0 nodad"
        ));
        for ns in ["h1", "h2", "gw", "s", "t", "net"] {
            world.listen(ns, PORT);
        }
        world.listen("gw", NATIVE);
        world.start_gateway().await;
        world
    }

    pub fn name(&self, n: &str) -> String {
        format!("{}-{n}", self.tag)
    }

    fn namespace(&mut self, n: &str) {
        let ns = self.name(n);
        sh(&format!("ip netns add {ns}"));
        self.namespaces.push(ns.clone());
        sh(&format!("ip -n {ns} link set lo up"));
    }

    /// Says its own name to whoever connects.
    fn listen(&self, n: &str, port: u16) {
        let (ns, n) = (self.name(n), n.to_owned());
        let socket = within(&ns, move || {
            TcpListener::bind(("::", port)).expect("listening")
        });
        std::thread::spawn(move || {
            for client in socket.incoming() {
                let _ = client.and_then(|mut c| c.write_all(n.as_bytes()));
            }
        });
    }

    pub fn run_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("gateway")
    }

    pub async fn start_gateway(&mut self) {
        let machine = Machine::namespace(&self.name("gw"));
        self.gw = Some(
            GatewayEdge::new(machine, &self.run_dir())
                .await
                .expect("gateway"),
        );
    }

    /// A desktop, on no host yet.
    pub fn desktop(&mut self, n: &str, plug: Plug) -> Desktop {
        self.namespace(n);
        let ns = self.name(n);
        let card = open_tap(&ns, &"eth0".parse().expect("name"));
        sh(&format!(
            "ip -n {ns} link set eth0 address {} addrgenmode eui64",
            plug.mac
        ));
        sh(&format!("ip -n {ns} link set eth0 up"));
        let gateway4 = plug.segment.gateway4();
        sh(&format!(
            "ip -n {ns} address add {}/22 dev eth0 && ip -n {ns} route add default via {gateway4}",
            plug.v4
        ));
        self.listen(n, PORT);
        Desktop {
            plug,
            ns,
            card: Arc::new(card),
            turn: Arc::default(),
        }
    }

    /// Tells everybody what should be.
    pub async fn apply(&mut self) {
        self.h1.apply(&self.host1).await.expect("host 1");
        self.h2.apply(&self.host2).await.expect("host 2");
        let gw = self.gw.as_mut().expect("there is a gateway");
        gw.apply(&self.gateway).await.expect("gateway");
    }

    pub fn policy(&mut self, number: u32, internet: Internet, allowed: &[&str], among: bool) {
        for host in [&mut self.host1, &mut self.host2] {
            for plug in host.plugs.iter_mut().filter(|p| p.segment.number == number) {
                plug.among_themselves = among;
            }
        }
        let course = self
            .gateway
            .courses
            .iter_mut()
            .find(|c| c.segment.number == number);
        course.expect("the course").policy = Policy {
            internet,
            allowed: allowed.iter().map(|d| d.parse().expect(d)).collect(),
            among_themselves: among,
        };
    }

    pub fn course(&mut self, number: u32, desktops: &[(&str, Plug)]) {
        let leases = desktops.iter().map(|(name, plug)| lyceum_net::Lease {
            mac: plug.mac,
            v4: plug.v4,
            name: Hostname::from_text(name, ""),
        });
        self.gateway.courses.push(Course {
            segment: segment(number),
            policy: Policy::default(),
            leases: leases.collect(),
        });
    }

    pub fn door(&mut self, desktop: &str, from: &str) {
        self.gateway.doors.push(Door {
            desktop: desktop.parse().expect("id"),
            from: from.parse().expect("address"),
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A gateway's servers outlive it.
        let mark = format!("--conf-file={}/", self.dir.path().display());
        for pid in servers(&mark) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
        }
        for ns in &self.namespaces {
            let _ = attempt(&format!("ip netns del {ns}"));
        }
    }
}

/// Processes that were started with such an argument.
pub fn servers(mark: &str) -> Vec<nix::unistd::Pid> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mut args = line.split(|b| *b == 0);
        args.any(|a| a.starts_with(mark.as_bytes()))
            .then(|| nix::unistd::Pid::from_raw(pid))
    })
    .collect()
}

/// Whether a connection comes about, and who answers. What is to come about is tried until the deadline;
/// what is not gets one try.
pub fn reach(from: &str, to: SocketAddr, expected: bool) -> bool {
    within(from, move || {
        let end = Instant::now() + DEADLINE;
        let patience = if expected {
            Duration::from_secs(3)
        } else {
            Duration::from_millis(600)
        };
        loop {
            let connected = TcpStream::connect_timeout(&to, patience).and_then(|mut c| {
                c.set_read_timeout(Some(Duration::from_secs(10)))?;
                c.read(&mut [0; 8])
            });
            match connected {
                Ok(n) if n > 0 => return true,
                _ if !expected || Instant::now() > end => return false,
                _ => std::thread::sleep(Duration::from_millis(30)),
            }
        }
    })
}
