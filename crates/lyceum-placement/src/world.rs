//! The snapshot with everything resolved to numbers, and the one place that says whether a
//! desktop fits on a host.

use crate::policy::{PlanPolicy, Spread};
use crate::snapshot::{Power, Snapshot, Standing};
use lyceum_model::UnixMillis;
use std::collections::HashMap;
use std::fmt;

/// What a host is good for in a plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Role {
    /// Gives and takes.
    Open,
    /// Gives only, and gives all it can.
    Draining,
    /// Neither gives nor takes; why, in words.
    Closed(String),
    /// Off, or on its way.
    Off,
}

/// A host while a plan is made.
#[derive(Debug, Clone)]
pub(crate) struct HostState {
    pub role: Role,
    /// Memory for desktops, MiB.
    pub usable: u64,
    pub nominal_limit: u64,
    /// Taken by desktops on it and on their way to it, MiB.
    pub used: u64,
    pub nominal: u64,
    pub seats: Option<u32>,
    /// Desktops on it and on their way to it.
    pub count: u32,
    /// Desktops on it.
    pub members: Vec<usize>,
    owners: HashMap<u32, u32>,
    courses: HashMap<u32, u32>,
    model: Option<u32>,
    releases: Option<Vec<u32>>,
    /// CPU use of the whole host, percent, as far as it is known.
    pub cpu: Option<f64>,
}

/// A desktop while a plan is made.
#[derive(Debug, Clone)]
pub(crate) struct DesktopState {
    /// Where it is; `None`: it waits.
    pub host: Option<usize>,
    /// What it takes where it is, MiB.
    pub cost: u64,
    /// What it will take after a move, MiB.
    pub cost_in: u64,
    /// What travels when it is moved, KiB.
    pub travels_kib: u64,
    pub nominal: u64,
    /// Why it can't be moved.
    pub fixed: Option<&'static str>,
    /// Place in its host's `members`.
    slot: usize,
    owner: Option<u32>,
    course: Option<u32>,
    model: Option<u32>,
    release: Option<u32>,
    /// Cores it uses.
    pub cores: f64,
}

/// Why a desktop can't go to a host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Why {
    Closed(String),
    NotOn,
    Draining,
    Seats(u32),
    Memory { needs: u64, free: u64 },
    Nominal { limit: u64 },
    Model,
    Release,
    Owner,
    Course,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Closed(why) => f.write_str(why),
            Why::NotOn => f.write_str("it is not on"),
            Why::Draining => f.write_str("it is being drained"),
            Why::Seats(seats) => write!(f, "all its {seats} seats are taken"),
            Why::Memory { needs, free } => {
                write!(f, "{needs} MiB are needed and {free} MiB are free")
            }
            Why::Nominal { limit } => {
                write!(f, "nominal memory would pass its limit of {limit} MiB")
            }
            Why::Model => f.write_str("its CPU model is another"),
            Why::Release => f.write_str("it does not hold the desktop's release"),
            Why::Owner => f.write_str("another desktop of the same person is there"),
            Why::Course => f.write_str("more desktops of the same course are there"),
        }
    }
}

/// The cluster while a plan is made.
#[derive(Clone)]
pub(crate) struct World<'a> {
    pub snapshot: &'a Snapshot,
    pub policy: &'a PlanPolicy,
    pub now: UnixMillis,
    pub hosts: Vec<HostState>,
    pub desktops: Vec<DesktopState>,
    /// What a free seat stands for on hosts without a number of seats, MiB.
    pub seat_mib: u64,
}

#[derive(Default)]
struct Names<'a>(HashMap<&'a str, u32>);

impl<'a> Names<'a> {
    fn number(&mut self, name: &'a str) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(name).or_insert(next)
    }
    fn some(&mut self, name: &'a Option<String>) -> Option<u32> {
        name.as_deref().map(|name| self.number(name))
    }
}

impl<'a> World<'a> {
    /// Of a snapshot that was checked.
    pub fn new(snapshot: &'a Snapshot, policy: &'a PlanPolicy, now: UnixMillis) -> Self {
        let (mut people, mut courses, mut models, mut releases) = (
            Names::default(),
            Names::default(),
            Names::default(),
            Names::default(),
        );
        let by_name: HashMap<&str, usize> = snapshot
            .hosts
            .iter()
            .enumerate()
            .map(|(i, h)| (h.id.as_str(), i))
            .collect();
        let hosts = snapshot
            .hosts
            .iter()
            .map(|h| HostState {
                role: role(h, policy, now),
                usable: h.usable_mib(),
                // Float to integer saturates, and memory is far below 2^53.
                nominal_limit: (h.usable_mib() as f64 * policy.overcommit) as u64,
                used: 0,
                nominal: 0,
                seats: h.seats,
                count: 0,
                members: Vec::new(),
                owners: HashMap::new(),
                courses: HashMap::new(),
                model: models.some(&h.cpu_model),
                releases: h
                    .releases
                    .as_ref()
                    .map(|all| all.iter().map(|r| releases.number(r)).collect()),
                cpu: h.cpu_percent,
            })
            .collect();
        let desktops: Vec<DesktopState> = snapshot
            .desktops
            .iter()
            .map(|d| DesktopState {
                host: None,
                cost: d.cost_mib(),
                // What waits starts as a fork, however it moves later.
                cost_in: match d.host {
                    Some(_) => d.cost_after_move_mib(),
                    None => d.cost_mib(),
                },
                // Float to integer saturates.
                travels_kib: (d.travels_mib() * 1024.0) as u64,
                nominal: d.memory_mib,
                fixed: if d.moving_to.is_some() {
                    Some("it is being moved")
                } else if d.pinned {
                    Some("it is pinned")
                } else if d.movable == Some(false) {
                    Some("it can't be moved")
                } else {
                    None
                },
                slot: 0,
                owner: people.some(&d.owner),
                course: courses.some(&d.course),
                model: models.some(&d.cpu_model),
                release: releases.some(&d.release),
                cores: d.cores_used(),
            })
            .collect();
        let seat_mib = policy.seat_mib.unwrap_or_else(|| {
            let sum: u64 = desktops.iter().map(|d| d.cost_in).sum();
            match desktops.len() as u64 {
                0 => 2048,
                n => sum.div_ceil(n).max(1),
            }
        });
        let mut world = World {
            snapshot,
            policy,
            now,
            hosts,
            desktops,
            seat_mib,
        };
        for (i, d) in snapshot.desktops.iter().enumerate() {
            if let Some(host) = d.host.as_deref().and_then(|h| by_name.get(h)) {
                world.insert(i, *host);
            }
            if let Some(target) = d.moving_to.as_deref().and_then(|h| by_name.get(h))
                && world.desktops[i].host != Some(*target)
            {
                // What is on its way takes its place at both ends.
                let host = &mut world.hosts[*target];
                host.used += world.desktops[i].cost_in;
                host.nominal += world.desktops[i].nominal;
                host.count += 1;
                if let Some(owner) = world.desktops[i].owner {
                    *host.owners.entry(owner).or_insert(0) += 1;
                }
                if let Some(course) = world.desktops[i].course {
                    *host.courses.entry(course).or_insert(0) += 1;
                }
            }
        }
        world
    }

    pub fn host_name(&self, h: usize) -> &'a str {
        &self.snapshot.hosts[h].id
    }

    pub fn desktop_name(&self, d: usize) -> &'a str {
        &self.snapshot.desktops[d].id
    }

    pub fn is_open(&self, h: usize) -> bool {
        self.hosts[h].role == Role::Open
    }

    /// Hosts that give and take.
    pub fn open(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|h| self.is_open(*h)).collect()
    }

    fn insert(&mut self, d: usize, h: usize) {
        let desktop = &mut self.desktops[d];
        let host = &mut self.hosts[h];
        desktop.host = Some(h);
        desktop.slot = host.members.len();
        host.members.push(d);
        host.used += desktop.cost;
        host.nominal += desktop.nominal;
        host.count += 1;
        if let Some(owner) = desktop.owner {
            *host.owners.entry(owner).or_insert(0) += 1;
        }
        if let Some(course) = desktop.course {
            *host.courses.entry(course).or_insert(0) += 1;
        }
    }

    /// Takes a desktop off its host; the other half is [`World::arrive`].
    pub fn leave(&mut self, d: usize) {
        let Some(h) = self.desktops[d].host.take() else {
            return;
        };
        let host = &mut self.hosts[h];
        let slot = self.desktops[d].slot;
        host.members.swap_remove(slot);
        if let Some(moved) = host.members.get(slot) {
            self.desktops[*moved].slot = slot;
        }
        let desktop = &self.desktops[d];
        host.used -= desktop.cost;
        host.nominal -= desktop.nominal;
        host.count -= 1;
        if let Some(n) = desktop.owner.and_then(|o| host.owners.get_mut(&o)) {
            *n -= 1;
        }
        if let Some(n) = desktop.course.and_then(|c| host.courses.get_mut(&c)) {
            *n -= 1;
        }
    }

    /// Puts a desktop that left its host on another: it takes there what it takes after a move.
    pub fn arrive(&mut self, d: usize, h: usize) {
        self.desktops[d].cost = self.desktops[d].cost_in;
        self.insert(d, h);
    }

    /// Puts a desktop back as if it had never left.
    pub fn put_back(&mut self, d: usize, h: usize, cost: u64) {
        self.desktops[d].cost = cost;
        self.insert(d, h);
    }

    /// Moves a desktop, with its CPU use.
    pub fn shift(&mut self, d: usize, to: usize) {
        if let Some(from) = self.desktops[d].host {
            for (h, sign) in [(from, -1.0), (to, 1.0)] {
                let share = self.cpu_share(d, h) * sign;
                if let Some(cpu) = &mut self.hosts[h].cpu {
                    *cpu = (*cpu + share).max(0.0);
                }
            }
        }
        self.leave(d);
        self.arrive(d, to);
    }

    /// What a desktop's present use is of a host, percent.
    pub fn cpu_share(&self, d: usize, h: usize) -> f64 {
        match self.snapshot.hosts[h].cpu_cores {
            Some(cores) => self.desktops[d].cores / cores * 100.0,
            None => 0.0,
        }
    }

    /// Desktops of the same person on a host, without this one.
    pub fn kin(&self, d: usize, h: usize) -> u32 {
        let here = u32::from(self.desktops[d].host == Some(h));
        self.desktops[d]
            .owner
            .and_then(|o| self.hosts[h].owners.get(&o))
            .map_or(0, |n| n - here)
    }

    /// Desktops of the same course on a host, without this one.
    pub fn classmates(&self, d: usize, h: usize) -> u32 {
        let here = u32::from(self.desktops[d].host == Some(h));
        self.desktops[d]
            .course
            .and_then(|c| self.hosts[h].courses.get(&c))
            .map_or(0, |n| n - here)
    }

    /// How little a place is liked for a desktop because of its kin; smaller is better.
    pub fn dislike(&self, d: usize, h: usize) -> u32 {
        let person = match self.policy.spread_owner {
            Spread::Off => 0,
            _ => self.kin(d, h),
        };
        let course = match self.policy.spread_course {
            Spread::Off => 0,
            _ => self.classmates(d, h),
        };
        person * 1000 + course
    }

    /// Whether the host suits the desktop at all, whatever else is there.
    pub fn suits(&self, d: usize, h: usize) -> Result<(), Why> {
        let (desktop, host) = (&self.desktops[d], &self.hosts[h]);
        match &host.role {
            Role::Open => {}
            Role::Draining => return Err(Why::Draining),
            Role::Closed(why) => return Err(Why::Closed(why.clone())),
            Role::Off => return Err(Why::NotOn),
        }
        if let (Some(a), Some(b)) = (desktop.model, host.model)
            && a != b
        {
            return Err(Why::Model);
        }
        if let (Some(release), Some(held)) = (desktop.release, &host.releases)
            && !held.contains(&release)
        {
            return Err(Why::Release);
        }
        Ok(())
    }

    /// Whether the desktop can be moved to the host just now, with what is there just now.
    /// `from` is where it is, or was before it left.
    pub fn fits(&self, d: usize, h: usize, from: Option<usize>) -> Result<(), Why> {
        self.suits(d, h)?;
        let (desktop, host) = (&self.desktops[d], &self.hosts[h]);
        if let Some(seats) = host.seats
            && host.count >= seats
        {
            return Err(Why::Seats(seats));
        }
        if host.used + desktop.cost_in > host.usable {
            return Err(Why::Memory {
                needs: desktop.cost_in,
                free: host.usable.saturating_sub(host.used),
            });
        }
        if desktop.cost_in < desktop.nominal && host.nominal + desktop.nominal > host.nominal_limit
        {
            return Err(Why::Nominal {
                limit: host.nominal_limit,
            });
        }
        if self.policy.spread_owner == Spread::Require {
            let kin = self.kin(d, h);
            if kin > 0 && from.is_none_or(|f| kin > self.kin(d, f)) {
                return Err(Why::Owner);
            }
        }
        if self.policy.spread_course == Spread::Require
            && from.is_some_and(|f| self.classmates(d, h) > self.classmates(d, f))
        {
            return Err(Why::Course);
        }
        Ok(())
    }

    /// Whether the desktop can be moved to the host just now.
    pub fn can_move(&self, d: usize, to: usize) -> Result<(), Why> {
        self.fits(d, to, self.desktops[d].host)
    }

    /// Whether nothing but room decides where any of these hosts' desktops can go.
    pub fn all_suit_all(&self, open: &[usize]) -> bool {
        if self.policy.spread_owner == Spread::Require
            || self.policy.spread_course == Spread::Require
        {
            return false;
        }
        let picky = open
            .iter()
            .any(|h| self.hosts[*h].model.is_some() || self.hosts[*h].releases.is_some());
        let mut seen = std::collections::HashSet::new();
        !picky
            || open.iter().flat_map(|h| &self.hosts[*h].members).all(|d| {
                !seen.insert((self.desktops[*d].model, self.desktops[*d].release))
                    || open.iter().all(|h| self.suits(*d, *h).is_ok())
            })
    }

    /// Whether the desktop's person has others, so that it is not just any desktop.
    pub fn has_kin(&self, d: usize) -> bool {
        self.desktops[d].owner.is_some_and(|o| {
            self.hosts
                .iter()
                .filter_map(|h| h.owners.get(&o))
                .sum::<u32>()
                > 1
        })
    }

    /// Seats that are free on a host.
    pub fn free_seats(&self, h: usize) -> u64 {
        let host = &self.hosts[h];
        match host.seats {
            Some(seats) => u64::from(seats.saturating_sub(host.count)),
            None => host.usable.saturating_sub(host.used) / self.seat_mib,
        }
    }

    /// All seats of a host when it is empty.
    pub fn all_seats(&self, h: usize) -> u64 {
        match self.hosts[h].seats {
            Some(seats) => u64::from(seats),
            None => self.hosts[h].usable / self.seat_mib,
        }
    }

    /// Part of the host's memory that is used; more than 1 when it is over.
    pub fn load(&self, h: usize) -> f64 {
        self.hosts[h].used as f64 / self.hosts[h].usable.max(1) as f64
    }
}

/// Clocks may differ by this much before a measurement from the future is distrusted, milliseconds.
const CLOCK_SLACK_MS: i64 = 60_000;

fn role(host: &crate::Host, policy: &PlanPolicy, now: UnixMillis) -> Role {
    match host.power {
        Power::Off | Power::Starting => return Role::Off,
        Power::Stopping => return Role::Closed("it is being switched off".into()),
        Power::On => {}
    }
    if host.standing == Standing::Maintenance {
        return Role::Closed("it is in maintenance".into());
    }
    if let Some(at) = host.measured_at {
        let age = now.saturating_sub(at);
        if age > i64::from(policy.stale_after_s) * 1000 {
            return Role::Closed(format!(
                "its last measurement is {} s old, so nothing is decided about it",
                age / 1000
            ));
        }
        if age < -CLOCK_SLACK_MS {
            return Role::Closed(format!(
                "its measurement is {} s in the future: the clocks disagree, so nothing is decided about it",
                age.saturating_neg() / 1000
            ));
        }
    }
    if host.standing == Standing::Draining {
        return Role::Draining;
    }
    if host.reserve {
        return Role::Closed("it is held in reserve".into());
    }
    Role::Open
}
