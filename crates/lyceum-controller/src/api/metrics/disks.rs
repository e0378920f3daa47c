//! What the file server says of its tiers, and hosts of the releases on their own disks.

use super::{Page, label};
use lyceum_model::UnixMillis;
use lyceum_proto::host::ReplicaFacts;
use lyceum_proto::storage::{StorageFacts, WrittenDay};

const DAY_MS: i64 = 86_400_000;

type Values = Vec<(String, f64)>;

/// Bytes of the account of the day that `now` is in; it begins anew at midnight (UTC).
fn today(days: &[WrittenDay], now: UnixMillis) -> f64 {
    let last = days.last().filter(|day| now - day.day < DAY_MS);
    last.map_or(0.0, |day| day.bytes as f64)
}

/// The file server, and what it said last; nothing where it is not heard, because old numbers
/// would look like new ones.
pub(super) fn storage(page: &mut Page, name: &str, heard: Option<&StorageFacts>, now: UnixMillis) {
    let of = || label("storage", name);
    let up = f64::from(u8::from(heard.is_some()));
    page.family(
        "storage_up",
        "gauge",
        "Whether the storage agent is heard.",
        &[(of(), up)],
    );
    let Some(facts) = heard else { return };
    let tiers = [
        ("fast", facts.fast, &facts.fast_written),
        ("slow", facts.slow, &facts.slow_written),
    ];
    let of_tiers = |value: &dyn Fn(usize) -> f64| -> Values {
        let labels = |tier: &str| format!("{{storage=\"{name}\",tier=\"{tier}\"}}");
        let all = tiers.iter().enumerate();
        all.map(|(n, (tier, ..))| (labels(tier), value(n)))
            .collect()
    };
    page.family(
        "tier_bytes",
        "gauge",
        "Size of a tier.",
        &of_tiers(&|n| tiers[n].1.total_bytes as f64),
    );
    page.family(
        "tier_used_bytes",
        "gauge",
        "What is taken of a tier.",
        &of_tiers(&|n| tiers[n].1.used_bytes as f64),
    );
    page.family(
        "tier_free_bytes",
        "gauge",
        "What is left of a tier.",
        &of_tiers(&|n| tiers[n].1.free_bytes as f64),
    );
    page.family(
        "tier_written_today_bytes",
        "gauge",
        "Bytes written to a tier's disks since midnight (UTC); begins anew every day.",
        &of_tiers(&|n| today(tiers[n].2, now)),
    );
    let left: Values = facts
        .desktops_left
        .map(|n| (of(), n as f64))
        .into_iter()
        .collect();
    page.family(
        "storage_desktops_left",
        "gauge",
        "How many desktops more there is room for, going by those that are there.",
        &left,
    );
    page.family(
        "storage_desktops_paused",
        "gauge",
        "Desktops that stand still because the slow tier is full.",
        &[(of(), facts.paused.len() as f64)],
    );
    page.family(
        "storage_desktops_lost",
        "gauge",
        "Desktops whose disk is lost.",
        &[(of(), facts.lost.len() as f64)],
    );
    let safe = matches!(facts.durability.as_str(), "" | "safe");
    page.family(
        "storage_safe",
        "gauge",
        "Whether what guests flushed survives a power cut of the file server.",
        &[(of(), f64::from(u8::from(safe)))],
    );
}

/// Hosts that keep releases on a disk of their own.
pub(super) fn replicas(page: &mut Page, hosts: &[(String, ReplicaFacts)]) {
    type Figure = fn(&ReplicaFacts) -> f64;
    const FIGURES: &[(&str, &str, &str, Figure)] = &[
        (
            "replica_releases",
            "gauge",
            "Complete releases on the host's own disk.",
            |r| r.releases.len() as f64,
        ),
        (
            "replica_used_bytes",
            "gauge",
            "What releases take of the host's own disk.",
            |r| r.used_bytes as f64,
        ),
        (
            "replica_limit_bytes",
            "gauge",
            "What releases may take of the host's own disk.",
            |r| r.limit_bytes as f64,
        ),
        (
            "replica_hits_total",
            "counter",
            "Times that a release was taken from the host's own disk.",
            |r| r.hits as f64,
        ),
        (
            "replica_misses_total",
            "counter",
            "Times that a release was taken from the file server, because it was not here.",
            |r| r.misses as f64,
        ),
        (
            "replica_from_server_bytes_total",
            "counter",
            "Bytes read from the file server to fill the host's own disk.",
            |r| r.from_server_bytes as f64,
        ),
        (
            "replica_from_here_bytes_total",
            "counter",
            "Bytes taken from other releases on the host's own disk instead.",
            |r| r.from_here_bytes as f64,
        ),
        (
            "replica_evicted_total",
            "counter",
            "Releases that made room.",
            |r| r.evicted as f64,
        ),
        (
            "replica_damaged_total",
            "counter",
            "Releases that were found damaged and removed.",
            |r| r.damaged as f64,
        ),
        (
            "replica_trouble",
            "gauge",
            "Whether something is wrong with the host's own disk; the page says what.",
            |r| f64::from(u8::from(r.trouble.is_some())),
        ),
    ];
    for (name, kind, help, figure) in FIGURES {
        let values: Values = hosts
            .iter()
            .map(|(host, facts)| (label("host", host), figure(facts)))
            .collect();
        page.family(&format!("host_{name}"), kind, help, &values);
    }
    let filling: Values = hosts
        .iter()
        .filter_map(|(host, facts)| {
            let filling = facts.filling.as_ref()?;
            let done = filling.done_bytes as f64 / filling.total_bytes.max(1) as f64;
            Some((label("host", host), done))
        })
        .collect();
    page.family(
        "host_replica_filling_ratio",
        "gauge",
        "How much of the release that is being copied is there, 0 to 1.",
        &filling,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_proto::host::ReplicaFilling;

    #[test]
    fn a_file_server_s_figures() {
        let text = r#"{"version":"1","driver":"lvm","same_device":false,
            "fast":{"total_bytes":1000,"used_bytes":400,"free_bytes":600},
            "slow":{"total_bytes":2000,"used_bytes":1500,"free_bytes":500},
            "durability":"nfs-async","desktops_left":7,"paused":["o-1"],
            "fast_written":[{"day":0,"bytes":5}],
            "slow_written":[{"day":0,"bytes":5},{"day":86400000,"bytes":77}]}"#;
        let facts: StorageFacts = serde_json::from_str(text).unwrap();
        let mut page = Page::default();
        storage(&mut page, "s1", Some(&facts), DAY_MS + 3);
        for line in [
            "lyceum_storage_up{storage=\"s1\"} 1",
            "lyceum_tier_used_bytes{storage=\"s1\",tier=\"fast\"} 400",
            "lyceum_tier_free_bytes{storage=\"s1\",tier=\"slow\"} 500",
            // Yesterday's account is not today's.
            "lyceum_tier_written_today_bytes{storage=\"s1\",tier=\"fast\"} 0",
            "lyceum_tier_written_today_bytes{storage=\"s1\",tier=\"slow\"} 77",
            "lyceum_storage_desktops_left{storage=\"s1\"} 7",
            "lyceum_storage_desktops_paused{storage=\"s1\"} 1",
            "lyceum_storage_desktops_lost{storage=\"s1\"} 0",
            "lyceum_storage_safe{storage=\"s1\"} 0",
        ] {
            assert!(page.0.lines().any(|l| l == line), "{line}\n{}", page.0);
        }
        let mut silent = Page::default();
        storage(&mut silent, "s1", None, DAY_MS);
        assert!(silent.0.contains("lyceum_storage_up{storage=\"s1\"} 0"));
        assert!(!silent.0.contains("tier_"));
    }

    #[test]
    fn hosts_own_disks() {
        let facts = ReplicaFacts {
            used_bytes: 12,
            limit_bytes: 50,
            hits: 3,
            misses: 1,
            from_server_bytes: 12,
            filling: Some(ReplicaFilling {
                release: "0".repeat(64).parse().unwrap(),
                done_bytes: 1,
                total_bytes: 4,
            }),
            trouble: Some("it is full".into()),
            ..ReplicaFacts::default()
        };
        let mut page = Page::default();
        replicas(&mut page, &[("h1".into(), facts)]);
        for line in [
            "lyceum_host_replica_hits_total{host=\"h1\"} 3",
            "lyceum_host_replica_misses_total{host=\"h1\"} 1",
            "lyceum_host_replica_from_server_bytes_total{host=\"h1\"} 12",
            "lyceum_host_replica_limit_bytes{host=\"h1\"} 50",
            "lyceum_host_replica_filling_ratio{host=\"h1\"} 0.25",
            "lyceum_host_replica_trouble{host=\"h1\"} 1",
        ] {
            assert!(page.0.lines().any(|l| l == line), "{line}\n{}", page.0);
        }
        let mut none = Page::default();
        replicas(&mut none, &[]);
        assert_eq!(none.0, "");
    }
}
