//! What a desktop's next move costs, out of what the last ones did: pure.
//!
//! Samples know a desktop's Pss. Not all of that travels: the hypervisor's own memory and pages that are
//! all alike do not. How much that is was seen at the desktop's last move, or else at others'; the
//! rest is what a delta carries.

use lyceum_model::{MoveWay, UnixMillis};
use lyceum_store::desktops::Desktop;
use lyceum_store::moves::Move;
use std::collections::HashMap;

/// Moves that are looked at for what is usual.
const USUAL: usize = 200;
const KIB_PER_MIB: f64 = 1024.0;

/// What is known of moves.
pub struct Prices<'a> {
    /// The newest of each desktop.
    last: HashMap<&'a str, &'a Move>,
    /// What usually does not travel of a desktop's Pss, KiB.
    stays_kib: Option<i64>,
    /// What moves had of a link, megabits per second.
    mbit_per_s: Option<f64>,
}

impl<'a> Prices<'a> {
    /// Out of moves that were done, the newest first. `limit`: what moves may use of a link, megabits per
    /// second; 0: all of it.
    pub fn of(done: &'a [Move], limit: u32) -> Prices<'a> {
        let mut last = HashMap::new();
        for m in done {
            last.entry(m.desktop.as_str()).or_insert(m);
        }
        let usual = &done[..done.len().min(USUAL)];
        let mut stays: Vec<i64> = usual.iter().filter_map(stays_kib).collect();
        stays.sort_unstable();
        Prices {
            last,
            stays_kib: stays.get(stays.len() / 2).copied(),
            mbit_per_s: match limit {
                0 => measured_mbit_per_s(usual),
                limit => Some(f64::from(limit)),
            },
        }
    }

    /// What a move may use of a link, or had of it, megabits per second.
    pub fn mbit_per_s(&self) -> Option<f64> {
        self.mbit_per_s
    }

    /// Whether it came where it is by live migration, so that it shares nothing any more.
    pub fn shares_nothing(&self, d: &Desktop) -> bool {
        self.last.get(d.id.as_str()).is_some_and(|m| {
            m.way == Some(MoveWay::Live)
                && m.generation == d.generation
                && d.host.as_ref() == Some(&m.to)
        })
    }

    /// What travels when it is moved in this way, MiB; `None`: nothing is known of it. `pss_kib` is what it takes now.
    pub fn travels_mib(&self, d: &Desktop, way: MoveWay, pss_kib: Option<i64>) -> Option<f64> {
        let own = self.last.get(d.id.as_str()).copied();
        let own = own.filter(|m| m.way == Some(way));
        let sent_kib = own.and_then(|m| m.bytes).map(|b| b.max(0) / 1024);
        let kib = match (way, pss_kib) {
            // All of its memory travels; how much of that is empty was seen.
            (MoveWay::Live, _) => sent_kib,
            (MoveWay::Delta, None) => sent_kib,
            (MoveWay::Delta, Some(pss)) => match own.and_then(stays_kib).or(self.stays_kib) {
                // It only grows while it runs: pages that were changed stay its own.
                Some(stays) => Some((pss - stays).max(sent_kib.unwrap_or(0)).max(0)),
                None => sent_kib,
            },
        }?;
        Some(kib as f64 / KIB_PER_MIB)
    }
}

/// What did not travel of a desktop's Pss when it moved as a delta, KiB.
fn stays_kib(m: &Move) -> Option<i64> {
    match (m.way, m.pss_before_kib, m.bytes) {
        (Some(MoveWay::Delta), Some(pss), Some(bytes)) => Some((pss - bytes / 1024).max(0)),
        _ => None,
    }
}

/// What moves had of a link, in all.
fn measured_mbit_per_s(moves: &[Move]) -> Option<f64> {
    let (mut bytes, mut ms) = (0.0, 0.0);
    for m in moves {
        if let (Some(b), Some(t)) = (m.bytes, m.total_ms)
            && b > 0
            && t > 0
        {
            bytes += b as f64;
            ms += t as f64;
        }
    }
    (ms > 0.0).then(|| bytes * 8.0 / 1000.0 / ms)
}

/// Moves that ended before this are of other times.
pub const LOOK_BACK_MS: UnixMillis = 30 * 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::step::tests_support::desktop as row_of;
    use lyceum_model::{Generation, MoveId, OperationId};
    use lyceum_store::moves::State;

    fn moved(desktop: &str, way: MoveWay, mib: i64, pss_mib: i64, ms: i64) -> Move {
        Move {
            id: MoveId::new(),
            desktop: desktop.parse().unwrap(),
            operation: OperationId::new(),
            from: "kvm1".parse().unwrap(),
            to: "kvm2".parse().unwrap(),
            state: State::Done,
            cancel: false,
            generation: Generation(7),
            wanted_way: None,
            way: Some(way),
            why: String::new(),
            reason: String::new(),
            message: String::new(),
            bytes: Some(mib << 20),
            pages: None,
            stand_still_ms: None,
            total_ms: Some(ms),
            pss_before_kib: Some(pss_mib << 10),
            pss_after_kib: None,
            created: 0,
            began: None,
            ended: Some(1),
        }
    }

    #[test]
    fn what_travels_follows_from_its_last_move_or_from_others() {
        let mut d = row_of();
        d.id = "d1".parse().unwrap();
        let none = Prices::of(&[], 0);
        assert_eq!(none.travels_mib(&d, MoveWay::Delta, Some(60 << 10)), None);
        assert_eq!(none.mbit_per_s(), None);

        // Others left 48 MiB behind; of its 60 the rest travels.
        let mut all = vec![
            moved("d2", MoveWay::Delta, 9, 57, 100),
            moved("d3", MoveWay::Delta, 8, 56, 100),
            moved("d4", MoveWay::Delta, 70, 80, 300),
        ];
        let prices = Prices::of(&all, 0);
        let delta = |p: &Prices, pss: i64| p.travels_mib(&d, MoveWay::Delta, Some(pss << 10));
        assert_eq!(delta(&prices, 60), Some(12.0));
        assert_eq!(delta(&prices, 20), Some(0.0));
        assert_eq!(prices.travels_mib(&d, MoveWay::Live, Some(60 << 10)), None);
        let rate = prices.mbit_per_s().unwrap();
        assert!((rate - 87.0 * 8.0 * 1.048576 / 0.5).abs() < 0.01, "{rate}");
        assert_eq!(Prices::of(&all, 800).mbit_per_s(), Some(800.0));

        // It has moved itself: what it changed since comes on top, and what it changed never comes off.
        all.insert(0, moved("d1", MoveWay::Delta, 10, 50, 100));
        let prices = Prices::of(&all, 0);
        assert_eq!(delta(&prices, 50), Some(10.0));
        assert_eq!(delta(&prices, 95), Some(55.0));
        assert_eq!(delta(&prices, 30), Some(10.0));

        // Live, of its own last time.
        all.insert(0, moved("d1", MoveWay::Live, 442, 56, 3500));
        let prices = Prices::of(&all, 0);
        assert_eq!(
            prices.travels_mib(&d, MoveWay::Live, Some(600 << 10)),
            Some(442.0)
        );
    }

    #[test]
    fn who_came_by_live_migration_shares_nothing_until_it_is_started_anew() {
        let mut d = row_of();
        d.id = "d1".parse().unwrap();
        d.host = Some("kvm2".parse().unwrap());
        d.generation = Generation(7);
        let all = vec![
            moved("d1", MoveWay::Live, 442, 56, 3500),
            moved("d1", MoveWay::Delta, 9, 57, 100),
        ];
        assert!(Prices::of(&all, 0).shares_nothing(&d));
        assert!(!Prices::of(&all[1..], 0).shares_nothing(&d));
        d.generation = Generation(8);
        assert!(!Prices::of(&all, 0).shares_nothing(&d));
    }
}
