//! How often somebody may try to sign in: token buckets in memory.
//!
//! An account is limited per address it is tried from, and an address over all accounts.
//! There is no limit per account alone: strangers could keep its owner out with it.
//! A right password costs nothing, so a class behind one address signs in at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Wrong tries in a row for one account from one address, and the time until one more is given.
const PAIR: Rate = Rate {
    burst: 5.0,
    every: Duration::from_secs(20),
};
/// The same for all accounts from one address.
const ADDRESS: Rate = Rate {
    burst: 60.0,
    every: Duration::from_secs(2),
};
/// Buckets that are kept; full ones are forgotten first.
const MOST: usize = 20_000;

struct Rate {
    burst: f64,
    every: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(blake3::Hash, u128),
    Address(u128),
}

impl Key {
    fn rate(&self) -> &'static Rate {
        match self {
            Key::Pair(..) => &PAIR,
            Key::Address(_) => &ADDRESS,
        }
    }
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// See the module.
#[derive(Default)]
pub struct SignInLimits {
    buckets: Mutex<HashMap<Key, Bucket>>,
}

// Whoever has an IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6) >> 64 << 64,
    }
}

fn keys(login: &str, address: IpAddr) -> [Key; 2] {
    let network = network(address);
    [
        Key::Pair(blake3::hash(login.as_bytes()), network),
        Key::Address(network),
    ]
}

impl SignInLimits {
    /// Takes a try. `Err`: seconds to wait until there is one.
    pub fn take(&self, login: &str, address: IpAddr, now: Instant) -> Result<(), u64> {
        // A poisoned lock only means that another thread panicked while it held plain numbers.
        let mut buckets = self.buckets.lock().unwrap_or_else(|p| p.into_inner());
        if buckets.len() >= MOST {
            buckets.retain(|key, bucket| fill(key, bucket, now) < key.rate().burst);
            if buckets.len() >= MOST {
                // A flood of addresses: forgetting all is better than keeping everybody out.
                buckets.clear();
            }
        }
        let keys = keys(login, address);
        let mut wait = 0.0f64;
        for key in &keys {
            let bucket = buckets.entry(key.clone()).or_insert(Bucket {
                tokens: key.rate().burst,
                at: now,
            });
            let tokens = fill(key, bucket, now);
            if tokens < 1.0 {
                wait = wait.max((1.0 - tokens) * key.rate().every.as_secs_f64());
            }
        }
        if wait > 0.0 {
            return Err(wait.ceil().max(1.0) as u64);
        }
        for key in &keys {
            if let Some(bucket) = buckets.get_mut(key) {
                bucket.tokens -= 1.0;
            }
        }
        Ok(())
    }

    /// The try was right: it does not count.
    pub fn give_back(&self, login: &str, address: IpAddr, now: Instant) {
        let mut buckets = self.buckets.lock().unwrap_or_else(|p| p.into_inner());
        for key in &keys(login, address) {
            if let Some(bucket) = buckets.get_mut(key) {
                bucket.tokens = (fill(key, bucket, now) + 1.0).min(key.rate().burst);
            }
        }
    }
}

fn fill(key: &Key, bucket: &mut Bucket, now: Instant) -> f64 {
    let rate = key.rate();
    let gained = now.saturating_duration_since(bucket.at).as_secs_f64() / rate.every.as_secs_f64();
    bucket.tokens = (bucket.tokens + gained).min(rate.burst);
    bucket.at = bucket.at.max(now);
    bucket.tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn five_wrong_tries_then_waiting_and_only_from_there() {
        let (limits, start) = (SignInLimits::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(limits.take("ana", HERE, start), Ok(()));
        }
        assert_eq!(limits.take("ana", HERE, start), Err(20));
        assert_eq!(
            limits.take("ben", HERE, start),
            Ok(()),
            "another account is kept out"
        );
        assert_eq!(
            limits.take("ana", THERE, start),
            Ok(()),
            "the owner is kept out by strangers"
        );
        assert_eq!(
            limits.take("ana", HERE, start + Duration::from_secs(15)),
            Err(5)
        );
        assert_eq!(
            limits.take("ana", HERE, start + Duration::from_secs(20)),
            Ok(())
        );
        assert!(
            limits
                .take("ana", HERE, start + Duration::from_secs(20))
                .is_err()
        );
    }

    #[test]
    fn a_class_behind_one_address_signs_in_at_once() {
        let (limits, now) = (SignInLimits::default(), Instant::now());
        for student in 0..500 {
            let login = format!("s{student}");
            assert_eq!(limits.take(&login, HERE, now), Ok(()));
            limits.give_back(&login, HERE, now);
        }
    }

    #[test]
    fn one_address_can_not_try_everybody() {
        let (limits, now) = (SignInLimits::default(), Instant::now());
        let tries = (0..500)
            .filter(|i| limits.take(&format!("s{i}"), HERE, now).is_ok())
            .count();
        assert_eq!(tries, 60);
    }

    #[test]
    fn a_whole_ipv6_network_counts_as_one_address() {
        let (limits, now) = (SignInLimits::default(), Instant::now());
        let at = |last: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 9, 9, 9, last));
        let tries = (0..100)
            .filter(|i| limits.take("ana", at(*i), now).is_ok())
            .count();
        assert_eq!(tries, 5);
    }

    #[test]
    fn memory_stays_bounded() {
        let (limits, now) = (SignInLimits::default(), Instant::now());
        for i in 0..60_000u32 {
            let _ = limits.take("ana", IpAddr::V4(i.into()), now);
        }
        assert!(limits.buckets.lock().unwrap().len() <= MOST + 2);
    }
}
