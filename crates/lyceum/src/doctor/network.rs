//! Addresses, ports, and the classroom when it runs.

use super::Finding;
use crate::client::Client;
use crate::place::{self, Place};
use crate::up::addresses_of;
use lyceum_api::hosts::{Health, Host, Storage};
use lyceum_api::networks::Network;
use std::path::Path;
use std::time::Duration;

pub(super) async fn check(state: &Path) -> Vec<Finding> {
    let socket = place::socket_in(state);
    if socket.exists()
        && let Ok(client) = Client::new(&Place::Socket(socket.clone()))
        && let Ok(health) = client.get::<Health>("health").await
    {
        let mut findings = running(&client, &health).await;
        findings.extend(own_ca(&socket));
        return findings;
    }
    let addresses = addresses_of(state);
    let mut findings = Vec::new();
    let mut names = Vec::new();
    match addresses.taken(Duration::ZERO).await {
        None => names.extend(addresses.all().into_iter().map(|(_, a)| a.to_string())),
        Some((what, address, e)) if e.kind() == std::io::ErrorKind::AddrInUse => findings.push(Finding::fail(
            "ports",
            format!("{address} for {what} is taken by another program"),
            "end that program (ss -ltnp shows it), or use lyceum up --page ADDRESS:PORT and --agents-port PORT",
        )),
        Some((what, address, e)) => findings.push(Finding::fail(
            "addresses",
            format!("{address} for {what} can't be listened on: {e}"),
            "bring the loopback interface up (ip link set lo up), or choose addresses of this machine",
        )),
    }
    if findings.is_empty() {
        findings.push(Finding::ok("ports", format!("free: {}", names.join(", "))));
    }
    findings
}

/// The CA by which browsers and command lines on other machines know this controller.
fn own_ca(socket: &Path) -> Option<Finding> {
    let dir = socket.parent()?;
    if !dir.join(lyceum_wire::ca::CA_FILE).exists() {
        return None;
    }
    let ca = lyceum_wire::ClassroomCa::open_or_create(dir).ok()?;
    let hex = ca.fingerprint();
    Some(Finding::ok(
        "ca",
        format!(
            "the classroom's own CA has the SHA-256 {hex}; from elsewhere: lyceum login --ca-sha256 {hex}"
        ),
    ))
}

/// What the gateway and the hosts say of courses' networks.
fn networks(network: &Network) -> Vec<Finding> {
    const CHECK: &str = "networks";
    const CURE: &str = "lyceum network show says more; docs/networks.md shows how it is set up";
    let hosts = network
        .hosts
        .iter()
        .filter_map(|h| Some((h.id.as_str(), h.problem.as_ref()?)));
    let mut findings: Vec<Finding> = hosts
        .map(|(host, problem)| Finding::warn(CHECK, format!("{host}: {problem}"), CURE))
        .collect();
    match (&network.problem, &network.gateway) {
        (Some(problem), _) => findings.push(Finding::warn(CHECK, problem, CURE)),
        (None, Some(gateway)) => findings.push(Finding::ok(
            CHECK,
            format!(
                "the gateway {gateway} keeps courses' networks and {} doors",
                network.doors
            ),
        )),
        (None, None) => {}
    }
    findings
}

/// What the classroom says of itself.
async fn running(client: &Client, health: &Health) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("ports", "in use by the classroom, which runs")];
    let skew = (jiff::Timestamp::now().as_millisecond() - health.now).abs();
    if skew > 5_000 {
        findings.push(Finding::warn(
            "clock",
            format!(
                "the controller's clock is {} away from this one",
                crate::format::duration(skew as u64)
            ),
            "run a time service on both machines",
        ));
    }
    if let Ok(hosts) = client.get::<Vec<Host>>("hosts").await {
        for host in hosts {
            if !host.online {
                findings.push(Finding::fail(
                    "hosts",
                    format!("{} is not heard", host.id),
                    "look at its log (STATE/logs), and whether its machine runs and is reached",
                ));
            }
            for warning in host.warnings {
                findings.push(Finding::warn(
                    "hosts",
                    format!("{}: {warning}", host.id),
                    "see the other findings",
                ));
            }
            if let Some(why) = host.refuses_because {
                findings.push(Finding::warn(
                    "hosts",
                    format!("{} takes no more desktops: {why}", host.id),
                    "stop or suspend desktops, or add a host",
                ));
            }
        }
    }
    if let Ok(network) = client.get::<Network>("network").await {
        findings.extend(networks(&network));
    }
    if let Ok(storage) = client.get::<Storage>("storage").await {
        if !storage.online {
            findings.push(Finding::fail(
                "storage",
                "the storage agent is not heard",
                "look at its log (STATE/logs)",
            ));
        }
        for warning in storage.warnings {
            findings.push(Finding::warn(
                "storage",
                warning,
                "see the storage agent's log",
            ));
        }
    }
    findings
}
