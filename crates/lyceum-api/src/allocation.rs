//! Which desktops run where and which hosts are on: what is wanted, what was planned and why, how hosts are
//! switched, and what was measured.

use crate::wording::Wordings;
use lyceum_model::{DesktopId, HostId, MoveWay, OperationId, PlanId, UnixMillis};
use lyceum_placement::{Mode, NotDone, PlanPolicy, PlanPrice, Price, Summary};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the classroom allocates its hosts: everything can be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Allocation {
    /// Plans are made and carried out by themselves. Otherwise only when somebody orders it.
    pub automatic: bool,
    /// How often it is looked whether there is something to do, minutes; 1 to 1440.
    pub every_minutes: u32,
    /// CPU use is judged by its average over so many minutes, and by nothing before half of them were measured; 2 to 60.
    pub average_minutes: u32,
    /// How long a host may take to come up, seconds; 10 to 3600. Then another one is taken.
    pub wake_timeout_s: u32,
    /// How long a host may take to go off, seconds; 10 to 3600.
    pub off_timeout_s: u32,
    /// A host whose agent was not heard for a while takes no part in plans for so long afterwards, seconds; 0 to 86400.
    pub settle_s: u32,
    /// Minute samples are kept this long, hours; 1 to 168.
    pub keep_minutes_h: u32,
    /// Ten-minute averages are kept this long, days; 1 to 400.
    pub keep_tens_days: u32,
    /// The numbers of plans. Its `mode` is the one in force unless the timetable says otherwise; `ordered` does not count.
    pub policy: PlanPolicy,
}

impl Default for Allocation {
    fn default() -> Self {
        Allocation {
            automatic: false,
            every_minutes: 5,
            average_minutes: 10,
            wake_timeout_s: 300,
            off_timeout_s: 180,
            settle_s: 120,
            keep_minutes_h: 48,
            keep_tens_days: 42,
            policy: PlanPolicy {
                overcommit: 8.0,
                ..PlanPolicy::default()
            },
        }
    }
}

/// What is wanted just now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AllocationNow {
    /// The settings.
    pub settings: Allocation,
    /// The mode in force.
    pub mode: Mode,
    /// Why that one, in words.
    pub mode_reason: String,
    /// Free seats that classes want soon.
    pub seats_needed: u32,
    /// When a plan was last carried out.
    pub last_acted_at: Option<UnixMillis>,
    /// The next one comes by itself no sooner than this; absent: nothing is in the way, or none comes by itself.
    pub not_before: Option<UnixMillis>,
    /// The plan that is being carried out.
    pub running: Option<PlanId>,
    /// When it is looked next whether there is something to do; absent: nothing comes by itself, or a plan is
    /// being carried out.
    #[serde(default)]
    pub next_look: Option<UnixMillis>,
    /// What came of the last look that nobody ordered; absent: there was none.
    #[serde(default)]
    pub last_look: Option<LastLook>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// What came of a look that nobody ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LastLook {
    /// When it was.
    pub at: UnixMillis,
    /// The plan that was made.
    pub plan: PlanId,
    /// What became of it.
    pub state: PlanState,
    /// Why nothing, or not more, was done: what is about all hosts before what is about one.
    pub why: Vec<NotDone>,
}

/// Make a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlanOrder {
    /// What for; absent: the mode in force.
    pub mode: Option<Mode>,
    /// Carry it out; otherwise it is only shown.
    pub act: bool,
}

/// Where a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// It was only asked for, to be looked at.
    Shown,
    /// There was nothing to do.
    Idle,
    /// It is being carried out.
    Running,
    /// All of it was done.
    Done,
    /// Some of it could not be done.
    Failed,
    /// It was called off, or something else was more important.
    Stopped,
}

/// What a step of a plan does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepAction {
    /// A host comes up.
    On,
    /// A desktop goes to another host.
    Move,
    /// A host is switched off.
    Off,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// For its turn.
    Waiting,
    /// It was begun.
    Begun,
    /// It is done.
    Done,
    /// It could not be done.
    Failed,
    /// It was left out.
    Skipped,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanStep {
    /// What it does.
    pub action: StepAction,
    /// The host that is switched, or that the desktop goes to.
    pub host: HostId,
    /// Where the desktop is.
    pub from: Option<HostId>,
    /// Which desktop.
    pub desktop: Option<DesktopId>,
    /// Whose it is, for people.
    pub name: String,
    /// Why.
    pub reason: String,
    /// How far it is.
    pub state: StepState,
    /// Why it failed or was left out.
    pub message: String,
    /// The operation of its move.
    pub operation: Option<OperationId>,
    /// What its move was expected to cost when the plan was made; absent: it is none, or nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// What its move really cost; absent: it is none, or not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<MoveCost>,
}

/// What a move really cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoveCost {
    /// How it was moved.
    pub way: Option<MoveWay>,
    /// Bytes sent.
    pub bytes: Option<u64>,
    /// How long it took in all, milliseconds.
    pub total_ms: Option<u64>,
    /// How long it stood still, milliseconds.
    pub stand_still_ms: Option<u64>,
    /// Its memory on the new host, KiB.
    pub pss_after_kib: Option<u64>,
}

/// A plan: what is to be done, why, and why not more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanRecord {
    /// Which.
    pub id: PlanId,
    /// When it was made.
    pub at: UnixMillis,
    /// What for.
    pub mode: Mode,
    /// Why this mode.
    pub mode_reason: String,
    /// Who ordered it; absent: it came by itself.
    pub ordered_by: Option<String>,
    /// Where it is.
    pub state: PlanState,
    /// How it ended, in words.
    pub message: String,
    /// What is done, in order.
    pub steps: Vec<PlanStep>,
    /// What its moves are expected to cost together; absent: there are none, or nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PlanPrice>,
    /// What is not done, and why.
    pub not_done: Vec<NotDone>,
    /// The classroom before.
    pub before: Summary,
    /// The classroom afterwards.
    pub after: Summary,
    /// When its first step was taken.
    pub acted_at: Option<UnixMillis>,
    /// When it was over.
    pub ended: Option<UnixMillis>,
    /// How its texts can be put into another language, by the English text.
    #[serde(default, skip_serializing_if = "Wordings::is_empty")]
    pub wordings: Wordings,
}

/// A plan with what went into it: a file of it is all that `lyceum plan --cluster` needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanDetails {
    /// The plan.
    pub plan: PlanRecord,
    /// The numbers it was made with.
    pub policy: PlanPolicy,
    /// Hosts, desktops and times as they were.
    #[schema(value_type = Object)]
    pub snapshot: serde_json::Value,
}

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// It runs, or should.
    #[default]
    On,
    /// It was told to come up.
    Waking,
    /// It is off.
    Off,
    /// It is to end, and takes nothing any more.
    GoingOff,
}

/// What is known of a host's power.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct HostPower {
    /// Whether it runs.
    pub state: PowerState,
    /// Since when; 0: not known.
    pub since: UnixMillis,
    /// It is to be switched: on (`true`) or off.
    pub wanted: Option<bool>,
    /// Why it could not be switched the last time; empty when it could.
    pub failure: String,
    /// When that was.
    pub failed_at: Option<UnixMillis>,
    /// Why it can't be switched from afar; absent: it can.
    pub not_switchable: Option<String>,
    /// What it draws while it is on, watts, as it was set.
    pub watts: Option<f64>,
    /// What its board's controller measures just now, watts.
    pub measured_watts: Option<f64>,
    /// Kept on and empty as a spare.
    pub reserve: bool,
    /// It is being worked on: plans leave it alone.
    pub maintenance: bool,
    /// Hosts of one group are switched one at a time.
    pub group: Option<String>,
}

/// What brings a host up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum PowerMethod {
    /// A magic packet.
    WakeOnLan {
        /// The network card's address, for example `52:54:00:12:34:56`.
        mac: String,
        /// Where the packet is sent; absent: `255.255.255.255:9`.
        #[serde(default)]
        address: Option<String>,
    },
    /// The board's own controller by IPMI over LAN, with `ipmitool`.
    Ipmi {
        /// Its address, with `:PORT` where that is not 623.
        address: String,
        /// Who signs in there.
        user: String,
    },
    /// The board's own controller by Redfish.
    Redfish {
        /// Its address, for example `https://10.0.0.17`.
        url: String,
        /// Who signs in there.
        user: String,
        /// Which system; absent: the only one.
        #[serde(default)]
        system: Option<String>,
        /// Its certificate is not looked at; boards often have none that anybody signed.
        #[serde(default)]
        any_certificate: bool,
    },
    /// A command of the controller's configuration.
    Command {
        /// Its name there, in `power_commands`.
        name: String,
    },
}

/// How a host is switched and what it draws.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PowerSetup {
    /// What brings it up; absent: nothing can, so it is never switched off.
    pub method: Option<PowerMethod>,
    /// What it draws while it is on, watts; 0 to 100000.
    pub watts: Option<f64>,
    /// What it draws while it is off, watts; 0 to 100000.
    pub watts_off: Option<f64>,
    /// Hosts of one group are switched one at a time.
    pub group: Option<String>,
    /// Kept on and empty as a spare.
    pub reserve: bool,
    /// It is being worked on: plans leave it alone.
    pub maintenance: bool,
}

/// Body of `PUT hosts/{id}/power`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PowerPut {
    /// How it is switched.
    pub setup: PowerSetup,
    /// A new password of its board's controller; absent: as it was. It is never given back.
    pub password: Option<String>,
}

// By hand: a password is nothing for a log.
impl std::fmt::Debug for PowerPut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PowerPut")
            .field("setup", &self.setup)
            .finish_non_exhaustive()
    }
}

/// How a host is switched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PowerShown {
    /// As it was set.
    pub setup: PowerSetup,
    /// Whether there is a password.
    pub has_password: bool,
    /// Names that `command` may have.
    pub commands: Vec<String>,
    /// What is known of it.
    pub power: HostPower,
}

/// A measurement: the average over some minutes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// When the minutes began.
    pub at: UnixMillis,
    /// CPU in percent of the host, or of a desktop's own virtual CPUs.
    pub cpu_percent: f64,
    /// Memory of desktops as Pss, KiB: shared pages are not counted twice.
    pub memory_kib: u64,
    /// Bytes per second read from disk.
    pub read_rate: Option<u64>,
    /// Bytes per second written to disk.
    pub written_rate: Option<u64>,
    /// Bytes per second received from the network.
    pub received_rate: Option<u64>,
    /// Bytes per second sent to the network.
    pub sent_rate: Option<u64>,
    /// Desktops that ran.
    pub desktops: u32,
}

/// Measurements of one host or desktop, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Samples {
    /// Minutes that one is over.
    pub span_minutes: u32,
    /// The measurements. Where nothing was measured there is none.
    pub samples: Vec<Sample>,
}

/// From when to when a desktop ran, out of the measurements: what a rehearsal replays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordedSession {
    /// Which desktop.
    pub desktop: String,
    /// When it began.
    pub begin: UnixMillis,
    /// When it ended, or was last measured.
    pub end: UnixMillis,
    /// Its CPU in percent of its own virtual CPUs, average.
    pub cpu_percent: f64,
}

/// Energy of all hosts on one day (UTC), measured where their boards do that, else by the watts they are said to draw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnergyDay {
    /// Begin of the day.
    pub day: UnixMillis,
    /// Drawn, kWh.
    pub drawn_kwh: f64,
    /// What would have been drawn with all hosts on, kWh.
    pub always_on_kwh: f64,
}
