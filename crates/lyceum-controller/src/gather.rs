//! What hosts say of themselves and their desktops within a minute, added up. Averages are over what was
//! really measured: a host whose agent answers but measures nothing says nothing new.

use lyceum_model::{DesktopId, UnixMillis};
use lyceum_proto::host::{Observed, Traffic};
use lyceum_store::samples::Values;
use std::collections::HashMap;
use std::time::Instant;

/// Of one host or desktop.
#[derive(Debug, Clone, Default)]
struct Sum {
    cpu: f64,
    memory_kib: f64,
    desktops: f64,
    count: u32,
    /// Bytes and seconds, in the order of [`parts`].
    bytes: [f64; 4],
    seconds: [f64; 4],
    last: Option<(Instant, Traffic)>,
}

fn parts(t: &Traffic) -> [Option<u64>; 4] {
    [t.read, t.written, t.received, t.sent]
}

impl Sum {
    fn add(&mut self, at: Instant, cpu: f64, memory_kib: f64, desktops: f64, traffic: Traffic) {
        if !cpu.is_finite() || !memory_kib.is_finite() {
            return;
        }
        self.cpu += cpu.max(0.0);
        self.memory_kib += memory_kib;
        self.desktops += desktops;
        self.count += 1;
        if let Some((then, before)) = self.last {
            let passed = at.duration_since(then).as_secs_f64();
            let (old, new) = (parts(&before), parts(&traffic));
            for i in 0..4 {
                // A counter that went back began anew.
                if let (Some(old), Some(new)) = (old[i], new[i])
                    && new >= old
                {
                    self.bytes[i] += (new - old) as f64;
                    self.seconds[i] += passed;
                }
            }
        }
        self.last = Some((at, traffic));
    }

    /// The averages so far; begins anew.
    fn take(&mut self) -> Option<(Values, u32)> {
        let sum = std::mem::replace(
            self,
            Sum {
                last: self.last,
                ..Sum::default()
            },
        );
        if sum.count == 0 {
            return None;
        }
        let n = f64::from(sum.count);
        let rate = |i: usize| {
            (sum.seconds[i] > 0.0).then(|| (sum.bytes[i] / sum.seconds[i]).round() as i64)
        };
        let values = Values {
            cpu: sum.cpu / n,
            memory_kib: (sum.memory_kib / n).round() as i64,
            read_rate: rate(0),
            written_rate: rate(1),
            received_rate: rate(2),
            sent_rate: rate(3),
            desktops: (sum.desktops / n).round() as i64,
        };
        Some((values, sum.count))
    }
}

/// Of one host and the desktops on it.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    /// The time of its last measurement by its own clock: only whether it changes is looked at.
    last_at: Option<UnixMillis>,
    host: Sum,
    desktops: HashMap<DesktopId, Sum>,
}

/// What was gathered of a host in a minute.
#[derive(Debug, Clone, Default)]
pub struct Minute {
    /// Of the host, with how many measurements.
    pub host: Option<(Values, u32)>,
    /// Of its desktops; CPU in percent of one processor.
    pub desktops: Vec<(DesktopId, Values, u32)>,
}

impl Gathered {
    /// The host said this now.
    pub fn add(&mut self, seen: &Observed, at: Instant) {
        let load = &seen.load;
        if self.last_at == Some(load.at) || load.at == 0 {
            return;
        }
        self.last_at = Some(load.at);
        let running: Vec<_> = seen
            .desktops
            .iter()
            .filter(|d| d.phase.may_hold_disk())
            .collect();
        let memory = load.desktops_pss_mib as f64 * 1024.0;
        self.host.add(
            at,
            load.cpu_percent,
            memory,
            running.len() as f64,
            load.traffic,
        );
        self.desktops
            .retain(|id, _| running.iter().any(|d| d.desktop == *id));
        for d in running {
            // Nothing is known of one that was not looked at yet.
            if d.pss_kib > 0 {
                let sum = self.desktops.entry(d.desktop.clone()).or_default();
                sum.add(at, d.cpu_percent, d.pss_kib as f64, 1.0, d.traffic);
            }
        }
    }

    /// The averages since the last time.
    pub fn take(&mut self) -> Minute {
        Minute {
            host: self.host.take(),
            desktops: self
                .desktops
                .iter_mut()
                .filter_map(|(id, sum)| {
                    let (values, count) = sum.take()?;
                    Some((id.clone(), values, count))
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_proto::host::HostLoad;
    use std::time::Duration;

    fn said(at: i64, cpu: f64, read: Option<u64>) -> Observed {
        Observed {
            boot: 1,
            revision: 1,
            desktops: Vec::new(),
            seals: Vec::new(),
            load: HostLoad {
                at,
                memory_mib: 1000,
                available_mib: 500,
                desktops_pss_mib: 10,
                cpu_percent: cpu,
                desktops_cpu_percent: 0.0,
                memory_pressure: 0.0,
                admits: true,
                refuses_because: None,
                traffic: Traffic {
                    read,
                    ..Traffic::default()
                },
            },
        }
    }

    #[test]
    fn what_is_said_twice_counts_once_and_clocks_do_not_matter() {
        let mut g = Gathered::default();
        let t = Instant::now();
        // Its clock is set back in between: nobody compares it.
        g.add(&said(9_000_000, 10.0, Some(1000)), t);
        g.add(&said(9_000_000, 10.0, Some(9999)), t);
        g.add(&said(5, 30.0, Some(3000)), t + Duration::from_secs(2));
        let (v, count) = g.take().host.unwrap();
        assert_eq!(count, 2);
        assert!((v.cpu - 20.0).abs() < 1e-9);
        assert_eq!((v.memory_kib, v.read_rate), (10 * 1024, Some(1000)));
        assert_eq!(v.sent_rate, None);
        // It measures nothing any more.
        g.add(&said(5, 30.0, Some(3000)), t + Duration::from_secs(60));
        assert!(g.take().host.is_none());
        // Its machine was started again: the counter began anew and says nothing of this minute.
        g.add(&said(6, 1.0, Some(10)), t + Duration::from_secs(90));
        assert_eq!(g.take().host.unwrap().0.read_rate, None);
        g.add(&said(7, f64::NAN, None), t + Duration::from_secs(91));
        assert!(g.take().host.is_none());
    }
}
