//! What is wanted: the mode and its numbers.

use crate::Invalid;
use crate::snapshot::number;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a plan is for.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(as = PlanMode))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Places for the desktops that wait.
    Start,
    /// The same share of memory, or of seats, on every host.
    #[default]
    MemoryBalance,
    /// Heavy desktops get room: the light ones beside them go to idle hosts.
    ComputeBalance,
    /// As few hosts as keep the wanted free seats.
    PowerSaving,
    /// Memory balance in the steps of the paper.
    MemoryBalancePaper,
    /// Power saving in the steps of the paper.
    PowerSavingPaper,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 6] = [
        Mode::Start,
        Mode::MemoryBalance,
        Mode::ComputeBalance,
        Mode::PowerSaving,
        Mode::MemoryBalancePaper,
        Mode::PowerSavingPaper,
    ];

    /// Its name, as in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Start => "start",
            Mode::MemoryBalance => "memory-balance",
            Mode::ComputeBalance => "compute-balance",
            Mode::PowerSaving => "power-saving",
            Mode::MemoryBalancePaper => "memory-balance-paper",
            Mode::PowerSavingPaper => "power-saving-paper",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| {
                let names: Vec<&str> = Mode::ALL.iter().map(|m| m.as_str()).collect();
                Invalid::new(
                    "policy".into(),
                    format!(
                        "there is no policy {text:?}; use one of {}",
                        names.join(", ")
                    ),
                )
            })
    }
}

/// What memory balance makes equal.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BalanceBy {
    /// Desktops per host when all have the same size and every host its seats, else memory.
    #[default]
    Auto,
    /// Desktops per host.
    Seats,
    /// The share of each host's memory that is in use.
    Memory,
}

/// How much is done to keep desktops that belong together on different hosts.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Nothing.
    Off,
    /// Where it costs neither a host nor a move.
    Prefer,
    /// No move puts a desktop where more of its kin are than where it comes from.
    Require,
}

/// The numbers. All have defaults, and all can be set on the page.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanPolicy {
    /// What the plan is for.
    pub mode: Mode,
    /// A person ordered it: the pause after the last plan does not count.
    pub ordered: bool,
    /// No mode acts sooner than this after the last one, minutes.
    pub pause_minutes: u32,
    /// Measurements older than this are not used, seconds.
    pub stale_after_s: u32,
    /// Nominal memory admitted, as a multiple of real memory. Only counts for desktops that share memory.
    pub overcommit: f64,
    /// Desktops of one person.
    pub spread_owner: Spread,
    /// Desktops of one course.
    pub spread_course: Spread,

    /// Memory balance: what is made equal.
    pub balance_by: BalanceBy,
    /// Memory balance of mixed sizes: a move is worth it when it takes this much off the standard
    /// deviation of the hosts' used memory, percent points, or makes two hosts even that differ by two desktops.
    pub balance_min_gain: f64,

    /// Power saving: a host is switched off only while at least this many seats stay free on the others.
    pub off_threshold_seats: u32,
    /// Power saving: hosts are switched on when there are not more free seats than this; 0: never.
    pub on_threshold_seats: u32,
    /// Power saving: hosts that stay on in any case.
    pub min_hosts: u32,
    /// Memory that a free seat stands for on hosts without a number of seats, MiB; `null`: the mean of all desktops.
    pub seat_mib: Option<u64>,
    /// Power saving: a host stays on at least this long, minutes.
    pub min_on_minutes: u32,
    /// Power saving: a host stays off at least this long, minutes.
    pub min_off_minutes: u32,

    /// Compute balance: a host, and a desktop, above this is busy, percent.
    pub cpu_high: f64,
    /// Compute balance: a host below this can take desktops, percent.
    pub cpu_low: f64,
    /// Compute balance: of the one-minute samples at least this share is above `cpu_high` when the overload lasts.
    pub cpu_lasting: f64,
    /// Compute balance: a move that relieves its host by less than this is not worth it, percent points.
    pub cpu_min_gain: f64,
}

impl Default for PlanPolicy {
    fn default() -> Self {
        PlanPolicy {
            mode: Mode::default(),
            ordered: false,
            pause_minutes: 30,
            stale_after_s: 180,
            overcommit: 4.0,
            spread_owner: Spread::Prefer,
            spread_course: Spread::Off,
            balance_by: BalanceBy::Auto,
            balance_min_gain: 0.5,
            off_threshold_seats: 18,
            on_threshold_seats: 6,
            min_hosts: 1,
            seat_mib: None,
            min_on_minutes: 30,
            min_off_minutes: 5,
            cpu_high: 80.0,
            cpu_low: 30.0,
            cpu_lasting: 0.7,
            cpu_min_gain: 1.0,
        }
    }
}

impl PlanPolicy {
    /// The defaults for a mode.
    pub fn of(mode: Mode) -> Self {
        PlanPolicy {
            mode,
            ..PlanPolicy::default()
        }
    }

    /// Free seats that switching off has to leave: those wanted, and enough not to switch on at once again.
    pub(crate) fn seats_to_keep(&self) -> u64 {
        let wanted = u64::from(self.off_threshold_seats);
        match self.on_threshold_seats {
            0 => wanted,
            on => wanted.max(u64::from(on) + 1),
        }
    }

    /// Whether it makes sense; what does not is named, for example `policy.cpu_low`.
    pub fn check(&self) -> Result<(), Invalid> {
        let at = |field: &str| format!("policy.{field}");
        for (field, value) in [
            ("overcommit", self.overcommit),
            ("balance_min_gain", self.balance_min_gain),
            ("cpu_high", self.cpu_high),
            ("cpu_low", self.cpu_low),
            ("cpu_lasting", self.cpu_lasting),
            ("cpu_min_gain", self.cpu_min_gain),
        ] {
            number(Some(value), || at(field))?;
        }
        if self.overcommit < 1.0 {
            return Err(Invalid::new(
                at("overcommit"),
                format!("is {}; give 1 or more", self.overcommit),
            ));
        }
        if self.cpu_low > self.cpu_high {
            return Err(Invalid::new(
                at("cpu_low"),
                format!(
                    "is {} and above cpu_high, {}; a host can't be idle and busy at once",
                    self.cpu_low, self.cpu_high
                ),
            ));
        }
        if self.cpu_lasting > 1.0 {
            return Err(Invalid::new(
                at("cpu_lasting"),
                format!("is {}; it is a share, give 0 to 1", self.cpu_lasting),
            ));
        }
        if self.on_threshold_seats > self.off_threshold_seats {
            return Err(Invalid::new(
                at("on_threshold_seats"),
                format!(
                    "is {} and above off_threshold_seats, {}; hosts would be switched on and off for ever",
                    self.on_threshold_seats, self.off_threshold_seats
                ),
            ));
        }
        if self.seat_mib == Some(0) {
            return Err(Invalid::new(at("seat_mib"), "is 0; give 1 or more".into()));
        }
        Ok(())
    }
}
