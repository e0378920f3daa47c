//! Bytes through this machine's disks and network cards, as the kernel counts them.

use lyceum_proto::host::Traffic;
use std::path::Path;

/// Bytes of a sector in `/proc/diskstats`, whatever the disk's are.
const SECTOR: u64 = 512;

/// Since the machine started.
pub(crate) async fn of_this_machine() -> Traffic {
    let disks = tokio::fs::read_to_string("/proc/diskstats").await.ok();
    let cards = tokio::fs::read_to_string("/proc/net/dev").await.ok();
    let (read, written) = disks.map(|t| disks_of(&t, is_whole_disk)).unzip();
    let (received, sent) = cards.map(|t| cards_of(&t, is_card)).unzip();
    Traffic {
        read,
        written,
        received,
        sent,
    }
}

/// What a machine received and sent through its tap, since that is there; `None`: not known.
pub(crate) async fn of_tap(name: &str) -> Option<(u64, u64)> {
    let text = tokio::fs::read_to_string("/proc/net/dev").await.ok()?;
    tap_of(&text, name)
}

/// The kernel counts from its own side: what it sends through a tap the machine receives.
fn tap_of(text: &str, name: &str) -> Option<(u64, u64)> {
    let there = text
        .lines()
        .any(|line| line.split_once(':').is_some_and(|(n, _)| n.trim() == name));
    let (received, sent) = cards_of(text, |n| n == name);
    there.then_some((sent, received))
}

/// A disk of its own: partitions, and devices made of others, would be counted twice.
fn is_whole_disk(name: &str) -> bool {
    Path::new("/sys/block").join(name).join("device").exists()
}

/// A card: bridges and what hangs on them would be counted twice.
fn is_card(name: &str) -> bool {
    Path::new("/sys/class/net")
        .join(name)
        .join("device")
        .exists()
}

/// Read and written, from the text of `/proc/diskstats`.
fn disks_of(text: &str, counts: impl Fn(&str) -> bool) -> (u64, u64) {
    let mut sum = (0u64, 0u64);
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(name), Some(read), Some(written)) = (fields.get(2), fields.get(5), fields.get(9))
        else {
            continue;
        };
        if counts(name) {
            let bytes = |sectors: &str| sectors.parse::<u64>().unwrap_or(0).saturating_mul(SECTOR);
            sum.0 = sum.0.saturating_add(bytes(read));
            sum.1 = sum.1.saturating_add(bytes(written));
        }
    }
    sum
}

/// Received and sent, from the text of `/proc/net/dev`.
fn cards_of(text: &str, counts: impl Fn(&str) -> bool) -> (u64, u64) {
    let mut sum = (0u64, 0u64);
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        let mut fields = rest.split_whitespace().map(|f| f.parse::<u64>());
        let (Some(Ok(received)), Some(Ok(sent))) = (fields.next(), fields.nth(7)) else {
            continue;
        };
        if counts(name.trim()) {
            sum.0 = sum.0.saturating_add(received);
            sum.1 = sum.1.saturating_add(sent);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_the_kernel_counts_and_nothing_twice() {
        let disks = "   8       0 sda 100 0 8 1 50 0 16 2 0 0 0\n   8       1 sda1 99 0 8 1 50 0 16 2 0 0 0\nnonsense\n 8 1 sdb 1 2 3\n";
        assert_eq!(disks_of(disks, |n| n == "sda"), (4096, 8192));
        let cards = "Inter-|   Receive\n face |bytes    packets\n  eth0: 1000 1 0 0 0 0 0 0 2000 2 0 0 0 0 0 0\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  bad: x\n";
        assert_eq!(cards_of(cards, |n| n == "eth0"), (1000, 2000));
        assert_eq!(cards_of("", |_| true), (0, 0));
        // From the machine's side.
        assert_eq!(tap_of(cards, "eth0"), Some((2000, 1000)));
        assert_eq!(tap_of(cards, "eth1"), None);
    }
}
