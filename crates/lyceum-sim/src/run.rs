//! One policy, minute by minute.

mod carry;

use crate::controller::{self, Rule};
use crate::lessons::Lessons;
use crate::random::Random;
use crate::report::{Outcome, Point};
use crate::scenario::{Bad, Scenario, WEEK};
use crate::sessions::Session;
use lyceum_placement::{
    Desktop, Host, Mode, Move, Plan, PlanPolicy, Power, Snapshot, Standing, plan,
};
use std::collections::{HashMap, HashSet, VecDeque};

/// A lesson on one day, by its place among all.
pub(crate) type Class = usize;

/// A desktop beside what the planner sees of it.
struct Live {
    session: Option<usize>,
    /// For whom it was started before the bell.
    class: Option<Class>,
    /// When it is started and usable, minutes.
    began: f64,
    ready: f64,
}

/// A host beside what the planner sees of it.
struct Machine {
    /// When it is up, while it is starting.
    up_at: u32,
    /// When it is mended.
    mended_at: Option<u32>,
    /// Minutes of running until it breaks.
    breaks_in: f64,
    /// When each of its start slots is free, minutes.
    slots: Vec<f64>,
    on: bool,
}

/// A school that is being played.
pub(crate) struct Run<'a> {
    pub scenario: &'a Scenario,
    pub lessons: &'a Lessons,
    sessions: &'a [Session],
    pub snapshot: Snapshot,
    live: Vec<Live>,
    machines: Vec<Machine>,
    /// Where each session's desktop is among the desktops.
    of_session: HashMap<usize, usize>,
    /// Sessions that wait for a seat, by the time they came.
    waiting: VecDeque<usize>,
    /// Classes whose desktops were started.
    started: HashMap<Class, u32>,
    /// The plan that is being carried out: hosts that come up, then its moves, then hosts off.
    coming: Vec<String>,
    queue: VecDeque<Move>,
    then_off: Vec<String>,
    /// What it was made with.
    by: Option<PlanPolicy>,
    pub minute: u32,
    random: Random,
    waits: Vec<f64>,
    seen: HashSet<usize>,
    next_id: u64,
    out: Outcome,
    watt_minutes: f64,
}

/// Plays a scenario with one policy.
pub(crate) fn run(
    scenario: &Scenario,
    lessons: &Lessons,
    sessions: &[Session],
    rule: Rule,
) -> Result<Outcome, Bad> {
    let mut run = Run::new(scenario, lessons, sessions, rule);
    // By the minute in which they begin and end.
    let minutes = scenario.minutes();
    let mut begins = vec![Vec::new(); minutes as usize];
    let mut ends = vec![Vec::new(); minutes as usize];
    for (i, s) in sessions.iter().enumerate() {
        if let Some(slot) = begins.get_mut(s.begin as usize) {
            slot.push(i);
        }
        if let Some(slot) = ends.get_mut(s.end as usize) {
            slot.push(i);
        }
    }
    let every = (minutes / 700).max(15);
    for minute in 0..minutes {
        run.minute = minute;
        run.hosts_come_and_break();
        for i in &ends[minute as usize] {
            run.leave(*i);
        }
        if rule == Rule::Ours {
            run.start_before_the_bell();
            run.seat()?;
        }
        for i in &begins[minute as usize] {
            run.arrive(*i);
        }
        run.seat()?;
        run.carry_on();
        controller::decide(&mut run, rule)?;
        run.account();
        if minute % every == 0 {
            let point = run.point();
            run.out.points.push(point);
        }
    }
    Ok(run.finish())
}

impl<'a> Run<'a> {
    fn new(
        scenario: &'a Scenario,
        lessons: &'a Lessons,
        sessions: &'a [Session],
        rule: Rule,
    ) -> Self {
        let h = &scenario.hosts;
        let mut random = Random::new(scenario.seed, 2);
        let hosts = (0..h.count)
            .map(|i| Host {
                id: format!("kvm{:04}", i + 1),
                memory_mib: h.memory_mib,
                reserved_mib: h.reserved_mib,
                seats: Some(h.seats),
                cpu_cores: Some(h.cpu_cores),
                cpu_percent: Some(0.0),
                watts: Some(h.watts),
                ..Host::default()
            })
            .collect();
        let machines = (0..h.count)
            .map(|_| Machine {
                up_at: 0,
                mended_at: None,
                breaks_in: breaks_in(scenario, &mut random),
                slots: vec![0.0; h.starts_at_once as usize],
                on: true,
            })
            .collect();
        Run {
            scenario,
            lessons,
            sessions,
            snapshot: Snapshot {
                hosts,
                ..Snapshot::default()
            },
            live: Vec::new(),
            machines,
            of_session: HashMap::new(),
            waiting: VecDeque::new(),
            started: HashMap::new(),
            coming: Vec::new(),
            queue: VecDeque::new(),
            then_off: Vec::new(),
            by: None,
            minute: 0,
            random,
            waits: Vec::new(),
            seen: HashSet::new(),
            next_id: 0,
            out: Outcome::of(rule),
            watt_minutes: 0.0,
        }
    }

    /// Now, as the planner counts.
    pub fn now(&self) -> i64 {
        i64::from(self.minute) * 60_000
    }

    fn hosts_come_and_break(&mut self) {
        for h in 0..self.machines.len() {
            let host = &mut self.snapshot.hosts[h];
            let machine = &mut self.machines[h];
            if machine.mended_at.is_some_and(|at| at <= self.minute) {
                machine.mended_at = None;
                host.standing = Standing::Active;
                if self.out.policy == Rule::None {
                    host.power = Power::Starting;
                    machine.up_at = self.minute + self.scenario.hosts.boot_minutes;
                }
            }
            if host.power == Power::Starting && machine.up_at <= self.minute {
                if self.random.chance(self.scenario.failures.no_boot) {
                    self.breaks(h);
                } else {
                    host.power = Power::On;
                    host.since = Some(i64::from(self.minute) * 60_000);
                }
                continue;
            }
            if host.power == Power::On {
                machine.breaks_in -= 1.0;
                if machine.breaks_in <= 0.0 {
                    machine.breaks_in = breaks_in(self.scenario, &mut self.random);
                    self.breaks(h);
                }
            }
        }
    }

    /// A host is away; who was on it waits for another desktop.
    fn breaks(&mut self, h: usize) {
        let host = &mut self.snapshot.hosts[h];
        host.power = Power::Off;
        host.standing = Standing::Maintenance;
        self.machines[h].mended_at = Some(self.minute + self.scenario.failures.repair_minutes);
        let id = host.id.clone();
        let mut lost = Vec::new();
        let mut i = 0;
        while i < self.live.len() {
            if self.snapshot.desktops[i].host.as_ref() != Some(&id) {
                i += 1;
                continue;
            }
            let Live { session, class, .. } = self.live[i];
            self.remove(i);
            match (session, class) {
                (Some(session), _) => {
                    self.out.interrupted += 1;
                    self.waiting.push_back(session);
                }
                // It was to be there at the bell, and will be, elsewhere.
                (None, Some(class)) => lost.push(class),
                (None, None) => {}
            }
        }
        for class in lost {
            self.new_desktop(None, Some(class), 1.0);
        }
        if self.then_off.contains(&id) || self.queue.iter().any(|m| m.to == id || m.from == id) {
            self.give_up();
        }
    }

    fn remove(&mut self, i: usize) {
        if let Some(session) = self.live[i].session {
            self.of_session.remove(&session);
        }
        self.live.swap_remove(i);
        self.snapshot.desktops.swap_remove(i);
        if let Some(session) = self.live.get(i).and_then(|l| l.session) {
            self.of_session.insert(session, i);
        }
    }

    fn leave(&mut self, session: usize) {
        self.waiting.retain(|s| *s != session);
        if let Some(i) = self.of_session.get(&session).copied() {
            self.remove(i);
        }
    }

    /// Which class a session belongs to.
    fn class_of(&self, session: usize) -> Option<Class> {
        let s = &self.sessions[session];
        let (c, p) = s.class?;
        self.lessons.nearest(c, p, s.begin)
    }

    fn bell(&self, class: Class) -> u32 {
        self.lessons.meetings[class].bell
    }

    /// Somebody comes: to a desktop that waits for them, or to none yet.
    fn arrive(&mut self, session: usize) {
        if self.sessions[session].end as u32 <= self.minute {
            return;
        }
        let class = self.class_of(session);
        let ready = class.and_then(|class| {
            (0..self.live.len()).find(|i| {
                self.live[*i].class == Some(class)
                    && self.live[*i].session.is_none()
                    && self.snapshot.desktops[*i].host.is_some()
            })
        });
        match ready {
            Some(i) => {
                self.live[i].session = Some(session);
                self.of_session.insert(session, i);
                self.snapshot.desktops[i].cpu_percent = Some(self.sessions[session].cpu_percent);
                let ready = self.live[i].ready;
                self.seated(session, ready);
            }
            None => self.waiting.push_back(session),
        }
    }

    /// How long somebody waited.
    fn seated(&mut self, session: usize, ready: f64) {
        // Once: who lost a desktop to a broken host later did not wait for it at the bell.
        if let Some(class) = self.class_of(session)
            && self.seen.insert(session)
        {
            let from = self.sessions[session]
                .begin
                .max(f64::from(self.bell(class)));
            self.waits.push((ready - from).max(0.0) * 60.0);
        }
    }

    /// The timetable's part: desktops are started before the bell, and those nobody came to are ended.
    fn start_before_the_bell(&mut self) {
        let before = self.scenario.start_before_minutes;
        for (class, students) in self.classes(self.minute, self.minute + before) {
            if self.started.contains_key(&class) {
                continue;
            }
            self.started.insert(class, students);
            for _ in 0..students {
                self.new_desktop(None, Some(class), 1.0);
            }
        }
        let mut i = 0;
        while i < self.live.len() {
            let late = self.live[i].session.is_none()
                && self.live[i]
                    .class
                    .is_some_and(|class| self.bell(class) + 15 <= self.minute);
            if late {
                self.remove(i);
            } else {
                i += 1;
            }
        }
    }

    /// Classes whose bell is in this time, with the number of students, that were not started yet.
    pub fn classes(&self, from: u32, to: u32) -> Vec<(Class, u32)> {
        let mut found = Vec::new();
        for week in [from / WEEK, from / WEEK + 1] {
            if week >= self.scenario.weeks {
                continue;
            }
            for class in self.lessons.week(week) {
                let meeting = &self.lessons.meetings[class];
                if (from..=to).contains(&meeting.bell) && !self.started.contains_key(&class) {
                    found.push((class, self.scenario.courses[meeting.course].students));
                }
            }
        }
        found
    }

    fn new_desktop(&mut self, session: Option<usize>, class: Option<Class>, cpu: f64) {
        self.next_id += 1;
        let h = &self.scenario.hosts;
        self.snapshot.desktops.push(Desktop {
            id: format!("d{}", self.next_id),
            memory_mib: h.desktop_mib,
            private_mib: Some(h.desktop_private_mib),
            cpu_percent: Some(cpu),
            ..Desktop::default()
        });
        self.live.push(Live {
            session,
            class,
            began: f64::INFINITY,
            ready: f64::INFINITY,
        });
        if let Some(session) = session {
            self.of_session.insert(session, self.live.len() - 1);
        }
    }

    /// Gives places to all that wait, through the planner.
    fn seat(&mut self) -> Result<(), Bad> {
        let came: Vec<usize> = self.waiting.drain(..).collect();
        for session in &came {
            let cpu = self.sessions[*session].cpu_percent;
            self.new_desktop(Some(*session), None, cpu);
        }
        if self.snapshot.desktops.iter().all(|d| d.host.is_some()) {
            return Ok(());
        }
        let mut plan = self.plan(&PlanPolicy::of(Mode::Start))?;
        if plan.starts.len()
            < self
                .snapshot
                .desktops
                .iter()
                .filter(|d| d.host.is_none())
                .count()
            && self.busy()
        {
            // Seats are needed that a plan in the middle of its way was about to take away.
            self.give_up();
            plan = self.plan(&PlanPolicy::of(Mode::Start))?;
        }
        let places: HashMap<&str, &str> = plan
            .starts
            .iter()
            .map(|s| (s.desktop.as_str(), s.host.as_str()))
            .collect();
        let numbers: HashMap<String, usize> = self
            .snapshot
            .hosts
            .iter()
            .enumerate()
            .map(|(i, h)| (h.id.clone(), i))
            .collect();
        let mut i = 0;
        while i < self.live.len() {
            if self.snapshot.desktops[i].host.is_some() {
                i += 1;
                continue;
            }
            let session = self.live[i].session;
            let place = places.get(self.snapshot.desktops[i].id.as_str());
            if let Some(h) = place.and_then(|host| numbers.get(*host)) {
                self.snapshot.desktops[i].host = Some(self.snapshot.hosts[*h].id.clone());
                let begin = session.map_or(f64::from(self.minute), |s| {
                    self.sessions[s].begin.max(f64::from(self.minute))
                });
                let ready = self.machines[*h].start(begin, self.scenario.hosts.start_seconds);
                self.live[i].began = begin;
                self.live[i].ready = ready;
                if let Some(session) = session {
                    self.seated(session, ready);
                }
                i += 1;
                continue;
            }
            match session {
                // Comes again next minute; counted once, in the minute they came.
                Some(session) => {
                    if self.sessions[session].begin as u32 == self.minute {
                        match self.sessions[session].class {
                            Some(_) => self.out.bell_without_seat += 1,
                            None => self.out.study_without_seat += 1,
                        }
                    }
                    self.remove(i);
                    self.waiting.push_back(session);
                }
                None => i += 1,
            }
        }
        Ok(())
    }

    /// Asks the planner, with the CPU load as it is.
    pub fn plan(&mut self, policy: &PlanPolicy) -> Result<Plan, Bad> {
        let mut cores: HashMap<&str, f64> = HashMap::new();
        for d in &self.snapshot.desktops {
            if let Some(host) = &d.host {
                *cores.entry(host).or_insert(0.0) += d.cores_used();
            }
        }
        for h in &mut self.snapshot.hosts {
            let used = cores.get(h.id.as_str()).copied().unwrap_or(0.0);
            h.cpu_percent = Some((used / self.scenario.hosts.cpu_cores * 100.0).min(100.0));
        }
        let now = self.now();
        plan(&self.snapshot, policy, now).map_err(|e| Bad::new(e.place, e.why))
    }

    fn account(&mut self) {
        let h = &self.scenario.hosts;
        let mut cores: HashMap<&str, f64> = HashMap::new();
        for d in &self.snapshot.desktops {
            if let Some(host) = &d.host {
                *cores.entry(host).or_insert(0.0) += d.cores_used();
            }
        }
        self.out.overloaded_host_minutes +=
            cores.values().filter(|used| **used > h.cpu_cores).count() as u32;
        for (host, machine) in self.snapshot.hosts.iter().zip(&mut self.machines) {
            machine.on = host.power != Power::Off;
            // What is broken draws what an off one draws.
            self.watt_minutes += if machine.on { h.watts } else { h.watts_off };
        }
    }

    fn point(&self) -> Point {
        let desktops = self
            .snapshot
            .desktops
            .iter()
            .filter(|d| d.host.is_some())
            .count() as u32;
        let up = self
            .snapshot
            .hosts
            .iter()
            .filter(|h| h.power == Power::On)
            .count() as u32;
        Point {
            minute: self.minute,
            hosts_on: self.machines.iter().filter(|m| m.on).count() as u32,
            desktops,
            free_seats: (up * self.scenario.hosts.seats).saturating_sub(desktops),
        }
    }

    fn finish(mut self) -> Outcome {
        self.waits.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let n = self.waits.len();
            let rank = (share * n as f64).ceil() as usize;
            self.waits
                .get(rank.clamp(1, n.max(1)) - 1)
                .copied()
                .unwrap_or(0.0)
        };
        let kwh = self.watt_minutes / 60_000.0;
        let h = &self.scenario.hosts;
        let always = f64::from(h.count) * h.watts * f64::from(self.scenario.minutes()) / 60_000.0;
        Outcome {
            kwh,
            saved_percent: if always > 0.0 {
                (1.0 - kwh / always) * 100.0
            } else {
                0.0
            },
            bell_students: self.sessions.iter().filter(|s| s.class.is_some()).count() as u32,
            bell_wait_median_s: at(0.5),
            bell_wait_p95_s: at(0.95),
            bell_wait_longest_s: at(1.0),
            ..self.out
        }
    }
}

impl Machine {
    /// Starts a desktop, as soon as one of the slots is free; when it is usable.
    fn start(&mut self, begin: f64, seconds: f64) -> f64 {
        let Some(slot) = self.slots.iter_mut().min_by(|a, b| a.total_cmp(b)) else {
            return begin;
        };
        *slot = slot.max(begin) + seconds / 60.0;
        *slot
    }
}

fn breaks_in(scenario: &Scenario, random: &mut Random) -> f64 {
    let mean = scenario.failures.hours_between * 60.0;
    if mean > 0.0 {
        -mean * (1.0 - random.unit()).ln()
    } else {
        f64::INFINITY
    }
}

impl Outcome {
    fn of(policy: Rule) -> Self {
        Outcome {
            policy,
            kwh: 0.0,
            saved_percent: 0.0,
            switched_on: 0,
            switched_off: 0,
            moves: 0,
            disturbed_minutes: 0,
            plans_given_up: 0,
            bell_students: 0,
            bell_without_seat: 0,
            bell_wait_median_s: 0.0,
            bell_wait_p95_s: 0.0,
            bell_wait_longest_s: 0.0,
            study_without_seat: 0,
            interrupted: 0,
            overloaded_host_minutes: 0,
            points: Vec::new(),
        }
    }
}
