//! The cluster in numbers, before and after a plan.

use crate::plan::Draft;
use serde::{Deserialize, Serialize};

/// A host in numbers.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(as = PlannedHost))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostSummary {
    /// Its name.
    pub id: String,
    /// Whether it is on.
    pub on: bool,
    /// Desktops on it and on their way to it.
    pub desktops: u32,
    /// Seats that are free on it; 0 when it is off.
    pub free_seats: u64,
    /// Memory its desktops take, MiB.
    pub used_mib: u64,
    /// The same in percent of what desktops may take.
    pub used_percent: f64,
    /// CPU use in percent, as far as it is known.
    pub cpu_percent: Option<f64>,
}

/// The cluster in numbers.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(as = PlannedCluster))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Hosts that are on.
    pub hosts_on: usize,
    /// Desktops that run.
    pub desktops: usize,
    /// Free seats of the hosts that are on and open.
    pub free_seats: u64,
    /// Memory in use, MiB.
    pub used_mib: u64,
    /// Standard deviation of the open hosts' used memory, percent points.
    pub spread_percent: f64,
    /// The fullest open host's memory, percent.
    pub fullest_percent: f64,
    /// Power drawn by the hosts that are on, watts, as far as it is known.
    pub watts: f64,
    /// Every host.
    pub hosts: Vec<HostSummary>,
}

/// Two digits after the point are enough for people and keep files short.
pub(crate) fn rounded(value: f64) -> f64 {
    // The sum of nothing is -0.0; adding 0 makes it 0.
    (value * 100.0).round() / 100.0 + 0.0
}

pub(crate) fn summary(draft: &Draft) -> Summary {
    let world = &draft.world;
    let hosts: Vec<HostSummary> = (0..world.hosts.len())
        .map(|h| {
            let on = draft.is_on(h);
            HostSummary {
                id: world.host_name(h).to_owned(),
                on,
                desktops: world.hosts[h].count,
                free_seats: if on { world.free_seats(h) } else { 0 },
                used_mib: world.hosts[h].used,
                used_percent: rounded(world.load(h) * 100.0),
                cpu_percent: world.hosts[h].cpu.map(rounded),
            }
        })
        .collect();
    let open: Vec<usize> = (0..world.hosts.len())
        .filter(|h| draft.is_on(*h) && (world.is_open(*h) || draft.on.contains(h)))
        .collect();
    let n = open.len().max(1) as f64;
    let mean = open.iter().map(|h| world.load(*h)).sum::<f64>() / n;
    let variance = open
        .iter()
        .map(|h| (world.load(*h) - mean).powi(2))
        .sum::<f64>()
        / n;
    Summary {
        hosts_on: hosts.iter().filter(|h| h.on).count(),
        desktops: world.desktops.iter().filter(|d| d.host.is_some()).count(),
        free_seats: open.iter().map(|h| world.free_seats(*h)).sum(),
        used_mib: hosts.iter().map(|h| h.used_mib).sum(),
        spread_percent: rounded(variance.sqrt() * 100.0),
        fullest_percent: rounded(
            open.iter()
                .map(|h| world.load(*h) * 100.0)
                .fold(0.0, f64::max),
        ),
        watts: rounded(
            (0..world.hosts.len())
                .filter(|h| draft.is_on(*h))
                .filter_map(|h| world.snapshot.hosts[h].watts)
                .sum(),
        ),
        hosts,
    }
}
