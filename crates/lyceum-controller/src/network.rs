//! Courses' networks and doors: from the store to what hosts and the gateway are to bring about.
//!
//! Nothing in here is remembered but what others did last: what should be is computed anew from the store
//! each time somebody asks.

use crate::app::App;
use crate::config::NetworkConfig;
use crate::error::ApiFailure;
use lyceum_api::networks::GatewayReport;
use lyceum_model::{CourseId, HostId, SessionId, UnixMillis};
use lyceum_net::wanted::Uplink;
use lyceum_net::{Course, Door, GatewayNetwork, Internet, Lease, Net, Plug, Policy, Segment};
use lyceum_proto::host::{HostFacts, NetworkFacts, NetworkRequest};
use lyceum_store::desktops::{Desktop, Owner};
use lyceum_store::networks::{self, CourseNetwork};
use lyceum_store::{StoreError, agents, courses, desktops};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The gateway is there when it said so within this time, milliseconds.
pub const SILENT_AFTER_MS: UnixMillis = 30_000;
/// How long an address counts from which a session was used, milliseconds. A page that is open asks more often.
const SEEN_FOR_MS: UnixMillis = 10 * 60_000;
/// Addresses of one session at a time.
const ADDRESSES_MAX: usize = 4;
/// How often hosts are told what they were told already, milliseconds: one may have lost it.
const TELL_AGAIN_MS: UnixMillis = 60_000;

/// What hosts and the gateway did last.
#[derive(Default)]
pub struct Networks {
    last: Mutex<Last>,
    v6: OnceLock<Net>,
    /// Somebody came from an address that was not known.
    pub moved: tokio::sync::Notify,
}

#[derive(Default)]
struct Last {
    /// And when.
    told: HashMap<HostId, (NetworkRequest, UnixMillis)>,
    report: Option<(GatewayReport, UnixMillis)>,
    /// What the gateway put right the last time.
    repaired: Option<(String, UnixMillis)>,
    /// When hosts put something right the last time that is in the audit log.
    audited: HashMap<HostId, UnixMillis>,
    problems: HashMap<HostId, String>,
    /// From where sessions were used lately, beside where they began.
    from: HashMap<SessionId, HashMap<IpAddr, UnixMillis>>,
    swept: UnixMillis,
}

impl Networks {
    fn lock(&self) -> MutexGuard<'_, Last> {
        // A poisoned lock only means that another thread panicked while it held plain data.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the gateway did.
    pub fn reported(&self, report: GatewayReport, now: UnixMillis) {
        let mut last = self.lock();
        if !report.repaired.is_empty() {
            last.repaired = Some((report.repaired.join("; "), now));
        }
        last.report = Some((report, now));
    }

    /// What it put right the last time, and when.
    pub fn repaired(&self) -> Option<(String, UnixMillis)> {
        self.lock().repaired.clone()
    }

    /// What it said last, and when.
    pub fn report(&self) -> Option<(GatewayReport, UnixMillis)> {
        self.lock().report.clone()
    }

    /// A session was used from there.
    pub fn seen(&self, session: &SessionId, from: IpAddr, now: UnixMillis) {
        let from = from.to_canonical();
        let mut last = self.lock();
        if now - last.swept > SEEN_FOR_MS {
            last.swept = now;
            last.from.retain(|_, all| {
                all.retain(|_, at| now - *at < SEEN_FOR_MS);
                !all.is_empty()
            });
        }
        let all = last.from.entry(session.clone()).or_default();
        // Whoever comes from everywhere gets no hole for each.
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&from) {
            return;
        }
        if all
            .insert(from, now)
            .is_none_or(|at| now - at >= SEEN_FOR_MS)
        {
            drop(last);
            self.moved.notify_waiters();
        }
    }

    fn lately(&self, session: &SessionId, now: UnixMillis) -> Vec<IpAddr> {
        let last = self.lock();
        let all = last.from.get(session).into_iter().flatten();
        all.filter(|(_, at)| now - **at < SEEN_FOR_MS)
            .map(|(a, _)| *a)
            .collect()
    }

    /// What is wrong with a host's part.
    pub fn problem(&self, host: &HostId) -> Option<String> {
        self.lock().problems.get(host).cloned()
    }
}

/// The classroom's IPv6 range; made by chance the first time.
async fn v6(app: &App) -> Result<Net, ApiFailure> {
    if let Some(v6) = app.networks.v6.get() {
        return Ok(*v6);
    }
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes[1..6])
        .map_err(|e| ApiFailure::internal(format!("the system gave no random bytes: {e}")))?;
    bytes[0] = 0xfd;
    let new = Net::new(IpAddr::from(bytes), 48).map(|n| n.to_string());
    let mut tx = app.store.begin_write().await?;
    let kept = networks::v6(&mut tx, &new.unwrap_or_default()).await?;
    tx.commit().await?;
    let kept = kept.parse().map_err(ApiFailure::internal)?;
    Ok(*app.networks.v6.get_or_init(|| kept))
}

fn segment(config: &NetworkConfig, v6: &Net, number: u32) -> Result<Segment, ApiFailure> {
    Segment::within(number, &config.segments, v6).ok_or_else(|| {
        ApiFailure::no_room(format!(
            "{} has no room for segment {number}: give the controller a wider range of segments",
            config.segments
        ))
    })
}

/// What a course's desktops may do at that time.
pub fn policy(outside: bool, network: &CourseNetwork, now: UnixMillis) -> Policy {
    let internet = match (outside, network.listed) {
        (true, _) => Internet::On,
        (false, true) => Internet::List,
        (false, false) => Internet::Off,
    };
    let policy = Policy {
        internet,
        // They were checked when they were written.
        allowed: network
            .allowed
            .iter()
            .filter_map(|d| d.parse().ok())
            .collect(),
        among_themselves: network.among_themselves,
    };
    match network.exam_until {
        Some(until) if until > now => policy.examination(),
        _ => policy,
    }
}

/// What a host says of its part.
fn facts(agent: &agents::Agent) -> Option<NetworkFacts> {
    let facts: HostFacts = serde_json::from_str(agent.facts.as_deref()?).ok()?;
    facts.network
}

/// Each host with its part; `None`: it takes none.
pub async fn hosts(app: &App) -> Result<Vec<(HostId, Option<NetworkFacts>)>, StoreError> {
    let agents = agents::list(&app.store, "host").await?;
    Ok(agents
        .into_iter()
        .map(|a| (a.id.clone(), facts(&a)))
        .collect())
}

fn address(facts: &NetworkFacts) -> Option<IpAddr> {
    match facts.uplink {
        Uplink::Vxlan { address } => Some(address),
        Uplink::Lan { .. } => None,
    }
}

/// Where the desktop is plugged in on that host; `None`: it gets QEMU's user network.
pub async fn plug(app: &App, d: &Desktop, host: &HostId) -> Result<Option<Plug>, ApiFailure> {
    let (Some(config), Owner::Course { course, .. }) = (&app.config.network, &d.owner) else {
        return Ok(None);
    };
    let agent = agents::get(&app.store, host).await?;
    match agent.as_ref().and_then(facts).map(|f| f.uplink) {
        None => return Ok(None),
        // Nobody would give it an address.
        Some(Uplink::Vxlan { .. }) if config.gateway.is_none() => return Ok(None),
        Some(_) => {}
    }
    let v6 = v6(app).await?;
    let mut tx = app.store.begin_write().await?;
    let network = networks::get_or_make(&mut tx, course).await?;
    let place = networks::place_of(&mut tx, &d.id, course).await?;
    tx.commit().await?;
    let outside = courses::get(&app.store, course)
        .await?
        .is_some_and(|c| c.outside);
    let segment = segment(config, &v6, network.number)?;
    let v4 = segment.desktop4(place).ok_or_else(|| {
        ApiFailure::no_room(
            "the course's network has no address left: delete desktops that nobody uses",
        )
    })?;
    // It must know the other machines before the first frame.
    tell(app, host).await?;
    Ok(Some(Plug {
        segment,
        mac: d.mac.parse().map_err(ApiFailure::internal)?,
        v4,
        among_themselves: policy(outside, &network, app.now()).among_themselves,
    }))
}

/// What every host is told.
async fn request(app: &App, gateway: Option<IpAddr>) -> Result<NetworkRequest, ApiFailure> {
    let hosts = hosts(app).await?;
    let mut members: Vec<IpAddr> = hosts
        .iter()
        .filter_map(|(_, facts)| facts.as_ref().and_then(address))
        .chain(gateway)
        .collect();
    members.sort();
    members.dedup();
    let outside: HashMap<CourseId, bool> = courses::list(&app.store)
        .await?
        .into_iter()
        .map(|c| (c.id, c.outside))
        .collect();
    let now = app.now();
    let among = networks::all(&app.store).await?;
    Ok(NetworkRequest {
        members,
        gateway,
        among_themselves: among
            .iter()
            .filter(|n| {
                let outside = outside.get(&n.course).copied().unwrap_or_default();
                policy(outside, n, now).among_themselves
            })
            .map(|n| n.number)
            .collect(),
    })
}

/// Tells the host what it is to know, unless it does.
pub async fn tell(app: &App, host: &HostId) -> Result<(), ApiFailure> {
    let Some(config) = &app.config.network else {
        return Ok(());
    };
    let request = request(app, config.gateway).await?;
    let now = app.now();
    let known = |(told, at): &(NetworkRequest, UnixMillis)| {
        *told == request && (now - at).abs() < TELL_AGAIN_MS
    };
    if app.networks.lock().told.get(host).is_some_and(known) {
        return Ok(());
    }
    let client = app.agents.host(host).await.map_err(ApiFailure::internal)?;
    let told: Result<serde::de::IgnoredAny, _> = client.put("/v1/network", &request).await;
    let mut last = app.networks.lock();
    match told {
        Ok(_) => {
            last.problems.remove(host);
            last.told.insert(host.clone(), (request, now));
            Ok(())
        }
        Err(e) => {
            last.problems.insert(host.clone(), e.to_string());
            Err(ApiFailure::unavailable(format!(
                "host {host} could not be told of courses' networks: {e}"
            )))
        }
    }
}

/// Tells every host that takes part.
pub async fn tell_all(app: &App) -> Result<(), ApiFailure> {
    for (host, facts) in hosts(app).await? {
        if facts.is_some()
            && let Err(e) = tell(app, &host).await
        {
            tracing::debug!("{e}");
        }
    }
    Ok(())
}

/// Writes into the audit log what hosts say that somebody had changed by hand.
pub async fn note_repairs(app: &App) -> Result<(), ApiFailure> {
    for (host, facts) in hosts(app).await? {
        let repaired = facts.and_then(|f| f.repaired);
        let (at, what) = repaired.map_or((0, String::new()), |r| (r.at, r.what));
        // What was there when this controller began is in the log already, or was said before it was heard.
        if app
            .networks
            .lock()
            .audited
            .insert(host.clone(), at)
            .is_none_or(|before| before == at)
            || at == 0
        {
            continue;
        }
        let mut tx = app.store.begin_write().await?;
        let target = format!("host/{host}");
        crate::audit::write_as(&mut tx, "system", "", "network.repaired", target, what).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// What the gateway is to bring about; `None`: there is none here.
pub async fn gateway(app: &App) -> Result<Option<GatewayNetwork>, ApiFailure> {
    let Some(config) = &app.config.network else {
        return Ok(None);
    };
    let ports = [app.native_port.get(), app.spice_port.get()];
    let mut network = GatewayNetwork {
        address: config.gateway,
        members: Vec::new(),
        protected: config.protected.clone(),
        upstreams: config.name_servers.clone(),
        courses: Vec::new(),
        native_ports: ports.into_iter().flatten().copied().collect(),
        doors: doors(app).await?,
    };
    let Some(gateway) = config.gateway else {
        return Ok(Some(network));
    };
    network.members = request(app, Some(gateway)).await?.members;
    let here: Vec<Net> = network.members.iter().copied().map(Net::single).collect();
    network.protected.extend(here);
    if network.upstreams.is_empty() {
        network.upstreams =
            name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    }
    let (all, places) = (
        desktops::all(&app.store).await?,
        networks::places(&app.store).await?,
    );
    let outside: HashMap<CourseId, bool> = courses::list(&app.store)
        .await?
        .into_iter()
        .map(|c| (c.id, c.outside))
        .collect();
    let v6 = v6(app).await?;
    for n in networks::all(&app.store).await? {
        let segment = match segment(config, &v6, n.number) {
            Ok(segment) => segment,
            Err(e) => {
                tracing::warn!(course = %n.course, "{e}");
                continue;
            }
        };
        let leases: Vec<Lease> = all
            .iter()
            .filter(|d| matches!(&d.owner, Owner::Course { course, .. } if *course == n.course))
            .filter_map(|d| {
                Some(Lease {
                    mac: d.mac.parse().ok()?,
                    v4: segment.desktop4(*places.get(&d.id)?)?,
                    name: d.hostname.clone(),
                })
            })
            .collect();
        // A course whose desktops were never plugged in costs nothing.
        if leases.is_empty() {
            continue;
        }
        let outside = outside.get(&n.course).copied().unwrap_or_default();
        network.courses.push(Course {
            segment,
            policy: policy(outside, &n, app.now()),
            leases,
        });
    }
    Ok(Some(network))
}

/// Who may come to the ports for native viewers.
pub async fn doors(app: &App) -> Result<Vec<Door>, ApiFailure> {
    let all = networks::doors(&app.store).await?;
    let now = app.now();
    let mut open: BTreeSet<Door> = BTreeSet::new();
    for (desktop, session, began) in all {
        let lately = app.networks.lately(&session, now);
        let mut addresses: BTreeSet<IpAddr> = lately.into_iter().collect();
        // Nothing was heard of it since this controller started, or it rests.
        if addresses.is_empty() {
            addresses.extend(began.parse::<IpAddr>().ok());
        }
        open.extend(addresses.into_iter().map(|from| Door {
            desktop: desktop.clone(),
            from: from.to_canonical(),
        }));
    }
    Ok(open.into_iter().collect())
}

/// The name servers of a `resolv.conf`.
fn name_servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

/// Where a request came from that a proxy passed on: the last address in its header that is none of
/// the school's own proxies. What stands before that anybody may have written.
pub fn forwarded(header: &str, peer: IpAddr, trusted: &[Net]) -> IpAddr {
    let is_proxy = |a: IpAddr| trusted.iter().any(|net| net.contains(a));
    let mut last = peer.to_canonical();
    for said in header.rsplit(',') {
        if !is_proxy(last) {
            return last;
        }
        let said = said.trim();
        // With a port, as some write it.
        let bare = match said.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None if said.matches(':').count() == 1 => said.split(':').next().unwrap_or_default(),
            None => said,
        };
        match bare.parse::<IpAddr>() {
            Ok(address) => last = address.to_canonical(),
            // A proxy that says nothing is the most that is known.
            Err(_) => return last,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(listed: bool, exam_until: Option<UnixMillis>) -> CourseNetwork {
        CourseNetwork {
            course: "course-a".parse().unwrap(),
            number: 1,
            listed,
            allowed: vec!["example.org".into(), "not a destination".into()],
            among_themselves: true,
            exam_until,
        }
    }

    #[test]
    fn an_examination_begins_and_ends_by_itself() {
        let usual = policy(true, &network(true, Some(1000)), 1000);
        assert_eq!(
            (usual.internet, usual.among_themselves),
            (Internet::On, true)
        );
        let exam = policy(true, &network(true, Some(1000)), 999);
        assert_eq!(
            (exam.internet, exam.among_themselves),
            (Internet::List, false)
        );
        assert_eq!(exam.allowed.len(), 1);
        assert_eq!(
            policy(false, &network(true, None), 0).internet,
            Internet::List
        );
        assert_eq!(
            policy(false, &network(false, None), 0).internet,
            Internet::Off
        );
    }

    #[test]
    fn only_proxies_of_the_school_are_believed() {
        let trusted: Vec<Net> = vec!["10.9.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        for (header, peer, expected) in [
            // Somebody outside writes what he likes.
            ("10.1.1.1", "203.0.113.5", "203.0.113.5"),
            ("192.0.2.7", "10.9.0.1", "192.0.2.7"),
            ("192.0.2.7", "::ffff:10.9.0.1", "192.0.2.7"),
            ("6.6.6.6, 192.0.2.7, 10.9.0.2", "10.9.0.1", "192.0.2.7"),
            ("2001:db8::7", "fd00::1", "2001:db8::7"),
            ("[2001:db8::7]:4711", "10.9.0.1", "2001:db8::7"),
            ("192.0.2.7:4711", "10.9.0.1", "192.0.2.7"),
            ("unknown", "10.9.0.1", "10.9.0.1"),
            ("", "10.9.0.1", "10.9.0.1"),
            ("10.9.0.3", "10.9.0.1", "10.9.0.3"),
        ] {
            let found = forwarded(header, peer.parse().unwrap(), &trusted);
            assert_eq!(found.to_string(), expected, "{header:?} from {peer}");
        }
        let peer = "10.9.0.1".parse().unwrap();
        assert_eq!(
            forwarded("192.0.2.7", peer, &[]),
            peer,
            "none is configured"
        );
    }

    #[test]
    fn name_servers_of_this_machine() {
        let text = "# x\nnameserver 192.0.2.53\nsearch a\nnameserver fe80::1%eth0\nnameserver 2001:db8::53\n";
        assert_eq!(name_servers(text).len(), 2);
    }

    async fn world(dir: &std::path::Path, people: usize) -> App {
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = crate::ControllerConfig::local(dir.to_owned(), any, any);
        config.network = Some(NetworkConfig {
            gateway: Some("192.0.2.10".parse().unwrap()),
            segments: "10.128.0.0/9".parse().unwrap(),
            protected: Vec::new(),
            name_servers: vec!["192.0.2.53".parse().unwrap()],
        });
        let app = App::open(config).await.unwrap();
        app.native_port.set(8473).unwrap();
        let mut tx = app.store.begin_write().await.unwrap();
        let image = lyceum_store::images::Image {
            id: "image-a".parse().unwrap(),
            name: "image".into(),
            description: String::new(),
            created: 1,
        };
        lyceum_store::images::insert(&mut tx, &image).await.unwrap();
        let course = courses::Course {
            id: "course-a".parse().unwrap(),
            name: "course".into(),
            image: image.id,
            release: None,
            size: None,
            persistence: lyceum_model::Persistence::Throwaway,
            outside: true,
            spice: false,
            deleting: false,
            created: 1,
        };
        courses::put(&mut tx, &course).await.unwrap();
        for n in 0..people {
            let id: lyceum_model::UserId = format!("user-{n}").parse().unwrap();
            let user = lyceum_store::users::User {
                id: id.clone(),
                login: format!("user{n}"),
                name: format!("User {n}"),
                role: lyceum_store::users::Role::Student,
                source: "local".into(),
                password_hash: None,
                disabled: false,
                deleting: false,
                created: 1,
            };
            lyceum_store::users::insert(&mut tx, &user).await.unwrap();
            let session = lyceum_store::sessions::Session {
                id: format!("session-{n}").parse().unwrap(),
                secret_hash: format!("hash-{n}"),
                user: id,
                created: 1,
                last_seen: 1,
                client: String::new(),
                // Two sit behind one address, the rest have IPv6.
                address: match n {
                    0 | 1 => "198.51.100.7".into(),
                    n => format!("2001:db8::{n:x}"),
                },
                may_set_password: false,
            };
            lyceum_store::sessions::insert(&mut tx, &session)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        app
    }

    async fn desktop(app: &App, n: usize, desired: lyceum_model::Desired) {
        let mut tx = app.store.begin_write().await.unwrap();
        let all = desktops::all_tx(&mut tx).await.unwrap();
        let id: lyceum_model::DesktopId = format!("desktop-{n}").parse().unwrap();
        let mut d = match desktops::get_tx(&mut tx, &id).await.unwrap() {
            Some(d) => d,
            None => {
                let mut taken = crate::orders::fresh::Taken::of(&all);
                let size = lyceum_model::MachineSize {
                    vcpus: 1,
                    memory_mib: 256,
                };
                let draft = lyceum_model::DraftId::new();
                let mut d = crate::orders::fresh::draft(&draft, size, &mut taken, 1).unwrap();
                d.id = id.clone();
                d.owner = Owner::Course {
                    course: "course-a".parse().unwrap(),
                    user: format!("user-{n}").parse().unwrap(),
                };
                d
            }
        };
        d.desired = desired;
        desktops::put(&mut tx, &d).await.unwrap();
        networks::get_or_make(&mut tx, &"course-a".parse().unwrap())
            .await
            .unwrap();
        networks::place_of(&mut tx, &id, &"course-a".parse().unwrap())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn doors_follow_desktops_and_sessions() {
        use lyceum_model::Desired;
        let dir = tempfile::tempdir().unwrap();
        let app = world(dir.path(), 3).await;
        let open = async || -> Vec<String> {
            let doors = doors(&app).await.unwrap();
            doors
                .iter()
                .map(|d| format!("{} {}", d.desktop, d.from))
                .collect()
        };
        assert_eq!(open().await, Vec::<String>::new());
        for n in 0..3 {
            desktop(&app, n, Desired::Running).await;
        }
        assert_eq!(
            open().await,
            [
                "desktop-0 198.51.100.7",
                "desktop-1 198.51.100.7",
                "desktop-2 2001:db8::2"
            ]
        );
        // One of the two behind one address ends; the other stays.
        desktop(&app, 0, Desired::Stopped).await;
        assert_eq!(
            open().await,
            ["desktop-1 198.51.100.7", "desktop-2 2001:db8::2"]
        );
        // The other signs out.
        let mut tx = app.store.begin_write().await.unwrap();
        lyceum_store::sessions::delete(
            &mut tx,
            &"user-1".parse().unwrap(),
            &"session-1".parse().unwrap(),
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(open().await, ["desktop-2 2001:db8::2"]);
        // Somebody goes on from another address, and is not known at the old one any more.
        let session = "session-2".parse().unwrap();
        app.networks
            .seen(&session, "2001:db8::99".parse().unwrap(), app.now());
        assert_eq!(open().await, ["desktop-2 2001:db8::99"]);
        app.networks
            .seen(&session, "::ffff:192.0.2.9".parse().unwrap(), app.now());
        assert_eq!(
            open().await,
            ["desktop-2 192.0.2.9", "desktop-2 2001:db8::99"]
        );
    }

    #[tokio::test]
    async fn a_class_comes_in_and_the_gateway_is_told_all() {
        use lyceum_model::Desired;
        let dir = tempfile::tempdir().unwrap();
        let app = world(dir.path(), 60).await;
        for n in 0..60 {
            desktop(&app, n, Desired::Running).await;
        }
        let began = std::time::Instant::now();
        let network = gateway(&app).await.unwrap().unwrap();
        println!(
            "60 doors of 60 desktops, computed in {} ms",
            began.elapsed().as_millis()
        );
        assert_eq!(network.doors.len(), 60);
        assert_eq!(network.native_ports, [8473]);
        let [course] = network.courses.as_slice() else {
            panic!()
        };
        let addresses: BTreeSet<_> = course.leases.iter().map(|l| l.v4).collect();
        assert_eq!(addresses.len(), 60, "each has its own");
        assert!(
            addresses
                .iter()
                .all(|a| course.segment.v4.contains((*a).into()))
        );
        assert_eq!(course.policy.internet, Internet::On);
        let again = gateway(&app).await.unwrap().unwrap();
        assert_eq!(network, again, "nothing changed");
    }
}
