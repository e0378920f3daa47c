//! What agents said last, for the page: memory, CPU, charts. It is only shown,
//! never decided upon: what decisions rest on goes through the store.

use crate::gather::{Gathered, Minute};
use lyceum_api::hosts::HostSample;
use lyceum_model::{DesktopId, HostId, UnixMillis};
use lyceum_proto::host::Observed;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, RwLock};

/// Points of a host's chart that are kept.
const RECENT: usize = 120;
/// Distance of two points, in milliseconds.
const SAMPLE_EVERY: UnixMillis = 5_000;

#[derive(Default)]
struct LiveHost {
    observed: Option<Observed>,
    recent: VecDeque<HostSample>,
    gathered: Gathered,
}

/// The newest numbers of every host. Cheap to clone.
#[derive(Clone, Default)]
pub struct Live(Arc<RwLock<HashMap<HostId, LiveHost>>>);

/// A desktop's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LiveDesktop {
    /// Proportional memory, KiB.
    pub pss_kib: u64,
    /// CPU in percent of one CPU.
    pub cpu_percent: f64,
    /// Bytes read from disk since the start.
    pub read_bytes: u64,
}

impl Live {
    /// A host said something.
    pub fn put(&self, host: &HostId, observed: Observed) {
        let mut hosts = self.0.write().unwrap_or_else(|p| p.into_inner());
        let entry = hosts.entry(host.clone()).or_default();
        let at = observed.load.at;
        if entry
            .recent
            .back()
            .is_none_or(|last| at - last.at >= SAMPLE_EVERY)
        {
            entry.recent.push_back(HostSample {
                at,
                cpu_percent: observed.load.cpu_percent,
                desktops_pss_mib: observed.load.desktops_pss_mib,
                desktops: observed
                    .desktops
                    .iter()
                    .filter(|d| d.phase.may_hold_disk())
                    .count() as u32,
            });
            if entry.recent.len() > RECENT {
                entry.recent.pop_front();
            }
        }
        entry.gathered.add(&observed, std::time::Instant::now());
        entry.observed = Some(observed);
    }

    /// What was measured since the last time, by host: averages for the store.
    pub fn take_minute(&self) -> Vec<(HostId, Minute)> {
        let mut hosts = self.0.write().unwrap_or_else(|p| p.into_inner());
        hosts
            .iter_mut()
            .map(|(id, host)| (id.clone(), host.gathered.take()))
            .collect()
    }

    /// The last that a host said.
    pub fn host(&self, host: &HostId) -> Option<Observed> {
        let hosts = self.0.read().unwrap_or_else(|p| p.into_inner());
        hosts.get(host).and_then(|h| h.observed.clone())
    }

    /// A host's chart.
    pub fn recent(&self, host: &HostId) -> Vec<HostSample> {
        let hosts = self.0.read().unwrap_or_else(|p| p.into_inner());
        hosts
            .get(host)
            .map(|h| h.recent.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Every desktop's numbers.
    pub fn desktops(&self) -> HashMap<DesktopId, LiveDesktop> {
        let hosts = self.0.read().unwrap_or_else(|p| p.into_inner());
        hosts
            .values()
            .filter_map(|h| h.observed.as_ref())
            .flat_map(|o| &o.desktops)
            .filter(|d| d.phase.may_hold_disk())
            .map(|d| {
                let live = LiveDesktop {
                    pss_kib: d.pss_kib,
                    cpu_percent: d.cpu_percent,
                    read_bytes: d.read_bytes,
                };
                (d.desktop.clone(), live)
            })
            .collect()
    }
}
