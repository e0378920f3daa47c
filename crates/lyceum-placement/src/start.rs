//! Placement at start, after the paper: among the hosts with enough free memory
//! the one with the fewest desktops.
//!
//! Forks share most of their memory, so "enough free memory" has two parts: the
//! *nominal* memory of everything on the host stays below its real memory times
//! the over-commit, and the host itself, which watches real use and pressure,
//! admits more. CPU model and release are respected, and one person's desktops are kept
//! apart where that is possible, as in every other plan.

use lyceum_model::{DesktopId, HostId, ReleaseId, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A host as it was when the decision was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// Which.
    pub id: HostId,
    /// Whether it may take desktops; otherwise why not, in words.
    pub closed: Option<String>,
    /// Memory for desktops, MiB.
    pub memory_mib: u64,
    /// Memory that is really free for them, MiB: what is left of `memory_mib` after
    /// the proportional memory of its desktops, and no more than the machine has available.
    pub free_mib: u64,
    /// Nominal memory of everything on it or on its way to it, MiB.
    pub nominal_mib: u64,
    /// Desktops on it or on their way to it.
    pub desktops: u32,
    /// Of these, how many each person has; who is not in it has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub people: BTreeMap<UserId, u32>,
    /// CPU model that desktops see on it; `None`: the classroom's common one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Releases it can start; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<Vec<ReleaseId>>,
}

/// What is to be placed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Which desktop.
    pub desktop: DesktopId,
    /// Nominal memory, MiB.
    pub memory_mib: u32,
    /// Memory it is expected to take for itself at once, MiB: all of it for a cold boot,
    /// a small part for a fork.
    pub private_mib: u32,
    /// A host to stay on if it is possible: where its files are warm.
    pub prefer: Option<HostId>,
    /// Whose it is.
    #[serde(default)]
    pub owner: Option<UserId>,
    /// CPU model it needs; `None`: any.
    #[serde(default)]
    pub cpu_model: Option<String>,
    /// The release it starts from.
    #[serde(default)]
    pub release: Option<ReleaseId>,
}

impl HostView {
    /// Desktops that the person of this request has here already.
    fn kin(&self, request: &Request) -> u32 {
        let owner = request.owner.as_ref();
        owner.and_then(|o| self.people.get(o)).copied().unwrap_or(0)
    }
}

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Nominal memory admitted, as a multiple of real memory.
    pub overcommit: f64,
    /// Most desktops on one host; 0: no such limit.
    pub seats: u32,
}

/// Where one desktop goes, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which desktop.
    pub desktop: DesktopId,
    /// The host.
    pub host: HostId,
    /// Why this one.
    pub reason: String,
    /// Why each of the others was not taken.
    pub others: Vec<(HostId, String)>,
}

/// Not all of them fit, so none is placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{wanted} desktops were to start and there is room for {fit}: {why}")]
pub struct Refusal {
    /// How many were asked for.
    pub wanted: usize,
    /// How many would have fitted.
    pub fit: usize,
    /// Each host with its reason, in words.
    pub why: String,
}

/// Places all requests or none. Requests are placed in the order given, each
/// seeing those before it; equal hosts are taken by name, so that the same input
/// gives the same plan.
pub fn place(
    hosts: &[HostView],
    requests: &[Request],
    policy: Policy,
) -> Result<Vec<Verdict>, Refusal> {
    let mut hosts = hosts.to_vec();
    hosts.sort_by(|a, b| a.id.cmp(&b.id));
    let mut verdicts = Vec::with_capacity(requests.len());
    for request in requests {
        let refusals: Vec<Option<String>> = hosts
            .iter()
            .map(|host| why_not(host, request, policy))
            .collect();
        let best = hosts
            .iter()
            .enumerate()
            .filter(|(i, _)| refusals[*i].is_none())
            .min_by_key(|(_, host)| {
                (
                    request.prefer.as_ref() != Some(&host.id),
                    host.kin(request),
                    host.desktops,
                    host.nominal_mib,
                    host.id.clone(),
                )
            })
            .map(|(i, _)| i);
        let Some(best) = best else {
            return Err(Refusal {
                wanted: requests.len(),
                fit: verdicts.len(),
                why: if hosts.is_empty() {
                    "no host has joined the classroom".into()
                } else {
                    hosts
                        .iter()
                        .zip(&refusals)
                        .map(|(h, r)| format!("{}: {}", h.id, r.as_deref().unwrap_or("free")))
                        .collect::<Vec<_>>()
                        .join("; ")
                },
            });
        };
        let chosen = &hosts[best];
        let reason = if request.prefer.as_ref() == Some(&chosen.id) {
            format!("it was on {} before, where its files are cached", chosen.id)
        } else {
            format!(
                "{} has {} desktops, the fewest of the hosts with enough memory ({} MiB free, {} of {} MiB nominal)",
                chosen.id,
                chosen.desktops,
                chosen.free_mib,
                chosen.nominal_mib,
                nominal_limit(chosen, policy)
            )
        };
        let others = hosts
            .iter()
            .zip(&refusals)
            .enumerate()
            .filter(|(i, _)| *i != best)
            .map(|(_, (h, r))| {
                let why = match r {
                    Some(why) => why.clone(),
                    None if h.kin(request) > chosen.kin(request) => {
                        "another desktop of the same person is there".into()
                    }
                    None => format!(
                        "has {} desktops, {} has {}",
                        h.desktops, chosen.id, chosen.desktops
                    ),
                };
                (h.id.clone(), why)
            })
            .collect();
        verdicts.push(Verdict {
            desktop: request.desktop.clone(),
            host: chosen.id.clone(),
            reason,
            others,
        });
        let chosen = &mut hosts[best];
        chosen.desktops += 1;
        if let Some(owner) = &request.owner {
            *chosen.people.entry(owner.clone()).or_insert(0) += 1;
        }
        chosen.nominal_mib += u64::from(request.memory_mib);
        chosen.free_mib = chosen
            .free_mib
            .saturating_sub(u64::from(request.private_mib));
    }
    Ok(verdicts)
}

/// Nominal memory a host admits, MiB.
pub fn nominal_limit(host: &HostView, policy: Policy) -> u64 {
    let factor = if policy.overcommit.is_finite() {
        policy.overcommit.max(1.0)
    } else {
        1.0
    };
    // Float to integer saturates; there is no host whose memory is near 2^53 MiB.
    (host.memory_mib as f64 * factor) as u64
}

fn why_not(host: &HostView, request: &Request, policy: Policy) -> Option<String> {
    if let Some(why) = &host.closed {
        return Some(why.clone());
    }
    if let (Some(needs), Some(has)) = (&request.cpu_model, &host.cpu_model)
        && needs != has
    {
        return Some(format!("its CPU model is {has}, {needs} is needed"));
    }
    if let (Some(release), Some(held)) = (&request.release, &host.releases)
        && !held.contains(release)
    {
        return Some("it does not hold the desktop's release".into());
    }
    if policy.seats > 0 && host.desktops >= policy.seats {
        return Some(format!("all {} seats are taken", policy.seats));
    }
    let limit = nominal_limit(host, policy);
    if host.nominal_mib + u64::from(request.memory_mib) > limit {
        return Some(format!(
            "{} MiB more would pass its nominal limit ({} of {limit} MiB taken)",
            request.memory_mib, host.nominal_mib
        ));
    }
    if host.free_mib < u64::from(request.private_mib) {
        return Some(format!(
            "needs {} MiB of its own at once, {} MiB are free",
            request.private_mib, host.free_mib
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(id: &str, memory: u64, desktops: u32) -> HostView {
        HostView {
            id: id.parse().expect("id"),
            closed: None,
            memory_mib: memory,
            free_mib: memory,
            nominal_mib: u64::from(desktops) * 768,
            desktops,
            ..HostView::default()
        }
    }
    fn request(n: usize) -> Request {
        Request {
            desktop: format!("d{n}").parse().expect("id"),
            memory_mib: 768,
            private_mib: 64,
            ..Request::default()
        }
    }
    const POLICY: Policy = Policy {
        overcommit: 4.0,
        seats: 0,
    };

    #[test]
    fn the_fewest_desktops_win_and_ties_go_by_name() {
        let plan = place(
            &[host("b", 8192, 2), host("a", 8192, 2), host("c", 8192, 5)],
            &[request(0)],
            POLICY,
        )
        .expect("room");
        assert_eq!(plan[0].host.as_str(), "a");
        assert_eq!(plan[0].others.len(), 2);
    }

    #[test]
    fn one_persons_desktops_are_kept_apart_while_hosts_allow_it() {
        let ann: UserId = "ann".parse().expect("id");
        let requests: Vec<Request> = (0..3)
            .map(|n| Request {
                owner: Some(ann.clone()),
                ..request(n)
            })
            .collect();
        let plan =
            place(&[host("a", 8192, 0), host("b", 8192, 9)], &requests, POLICY).expect("room");
        let hosts: Vec<&str> = plan.iter().map(|v| v.host.as_str()).collect();
        assert_eq!(hosts, ["a", "b", "a"]);
        assert!(plan[1].others[0].1.contains("same person"));
    }

    #[test]
    fn cpu_model_and_release_are_respected() {
        let mut other = host("a", 8192, 0);
        other.cpu_model = Some("v3".into());
        let mut without = host("b", 8192, 0);
        without.releases = Some(vec![]);
        let picky = Request {
            cpu_model: Some("v2".into()),
            release: Some("r1".parse().expect("id")),
            ..request(0)
        };
        let hosts = [other, without, host("c", 8192, 5)];
        let plan = place(&hosts, std::slice::from_ref(&picky), POLICY).expect("room");
        assert_eq!(plan[0].host.as_str(), "c");
        assert!(place(&hosts[..2], &[picky], POLICY).is_err());
    }

    #[test]
    fn a_class_that_does_not_fit_is_refused_whole() {
        let requests: Vec<_> = (0..30).map(request).collect();
        let refusal = place(&[host("a", 2048, 0), host("b", 2048, 0)], &requests, POLICY)
            .expect_err("no room");
        assert_eq!((refusal.wanted, refusal.fit), (30, 20));
    }

    proptest! {
        #[test]
        fn no_limit_is_ever_passed_and_counts_stay_level(
            sizes in proptest::collection::vec(1u32..4096, 1..60),
            memory in proptest::collection::vec(1024u64..32768, 1..6),
            overcommit in 1.0f64..8.0,
            seats in 0u32..20,
        ) {
            let hosts: Vec<_> = memory.iter().enumerate().map(|(i, m)| host(&format!("h{i}"), *m, 0)).collect();
            let requests: Vec<_> = sizes.iter().enumerate()
                .map(|(i, s)| Request { memory_mib: *s, private_mib: s / 10, ..request(i) }).collect();
            let policy = Policy { overcommit, seats };
            if let Ok(plan) = place(&hosts, &requests, policy) {
                prop_assert_eq!(plan.len(), requests.len());
                for h in &hosts {
                    let mine: Vec<_> = plan.iter().zip(&requests).filter(|(v, _)| v.host == h.id).collect();
                    let nominal: u64 = mine.iter().map(|(_, r)| u64::from(r.memory_mib)).sum();
                    let private: u64 = mine.iter().map(|(_, r)| u64::from(r.private_mib)).sum();
                    prop_assert!(nominal <= nominal_limit(h, policy));
                    prop_assert!(private <= h.memory_mib);
                    prop_assert!(seats == 0 || mine.len() <= seats as usize);
                }
                prop_assert_eq!(&place(&hosts, &requests, policy).expect("same"), &plan);
            }
        }
    }
}
