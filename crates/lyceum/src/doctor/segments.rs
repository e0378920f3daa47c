//! Courses' networks: whether this machine could be a host or the gateway of some. A classroom on one machine
//! needs none of it, so nothing here stands in the way.

use super::Finding;
use nix::unistd::geteuid;
use std::path::Path;
use std::process::{Command, Stdio};

const CHECK: &str = "networks";
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// Programs and their packages.
const TOOLS: [(&str, &str); 4] = [
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("dnsmasq", "dnsmasq-base"),
];
/// What is tried in a network namespace that ends with it: what it is, how, and what to do when it can't be.
const TRIES: [(&str, &str, &str); 4] = [
    (
        "a bridge",
        "ip link add name lybtry type bridge",
        "load the kernel module bridge",
    ),
    (
        "a VXLAN",
        "ip link add name lyxtry type vxlan id 1 dstport 4789 local 127.0.0.1",
        "load the kernel module vxlan, or take a kernel that has it",
    ),
    (
        "a tap",
        "ip tuntap add dev lyttry mode tap vnet_hdr",
        "load the kernel module tun; in a container, give it /dev/net/tun",
    ),
    (
        "a firewall for bridged frames",
        "printf 'table bridge t {\\nchain c { type filter hook prerouting priority -300; ether type arp accept; }\\n}\\ntable inet t {\\nchain n { type nat hook postrouting priority 100; masquerade; }\\n}\\n' | nft --file -",
        "take a kernel with nftables for the families bridge and inet (nf_tables, nft_chain_nat, nft_masq)",
    ),
];

pub(super) fn check() -> Vec<Finding> {
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(program, _)| !PATH.split(':').any(|d| Path::new(d).join(program).exists()))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        return vec![Finding::warn(
            CHECK,
            "courses can't have networks of their own here; a classroom on one machine needs none",
            format!("for several machines: apt-get install {}", unique(missing)),
        )];
    }
    if !geteuid().is_root() {
        return vec![Finding::ok(
            CHECK,
            "the programs for courses' networks are there; whether they may be used only root can try (sudo lyceum doctor)",
        )];
    }
    let mut findings: Vec<Finding> = TRIES
        .iter()
        .filter_map(|(what, how, cure)| {
            let said = try_apart(how).err()?;
            Some(Finding::warn(
                CHECK,
                format!("{what} can't be made here, so courses can't have networks: {said}"),
                *cure,
            ))
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            "bridges, VXLANs, taps and firewall rules can be made: this machine can be a host or the gateway of courses' networks",
        ));
    }
    findings.extend(forwarding());
    findings
}

fn unique(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

/// Runs the line where it changes nothing.
fn try_apart(line: &str) -> Result<(), String> {
    let out = Command::new("unshare")
        .args(["--net", "sh", "-c", line])
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("unshare: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&out.stderr);
            Err(said.lines().next().unwrap_or("no reason given").to_owned())
        }
    }
}

/// Who else decides on what a gateway passes on, and whether anything is passed on at all.
fn forwarding() -> Vec<Finding> {
    let mut findings = Vec::new();
    let on = |key: &str| std::fs::read_to_string(key).is_ok_and(|v| v.trim() == "1");
    let (v4, v6) = (
        on("/proc/sys/net/ipv4/ip_forward"),
        on("/proc/sys/net/ipv6/conf/all/forwarding"),
    );
    findings.push(Finding::ok(
        CHECK,
        match v4 && v6 {
            true => "this machine passes packets on, as a gateway does",
            false => {
                "this machine passes no packets on; lyceum gateway turns that on where it runs"
            }
        },
    ));
    let rules = Command::new("nft")
        .args(["--json", "list", "chains"])
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .output();
    if let Ok(out) = rules {
        let said = serde_json::from_slice(&out.stdout).unwrap_or_default();
        findings.extend(strangers(&said).into_iter().map(|table| {
            Finding::warn(
                CHECK,
                format!("the firewall table {table}, which is not Lyceum's, drops what this machine is to pass on"),
                "on the gateway: let it accept what comes from and goes to devices lyb*; on other machines it does no harm",
            )
        }));
    }
    findings
}

/// Tables of others that forward nothing unless a rule of theirs says so.
fn strangers(said: &serde_json::Value) -> Vec<String> {
    let all = said["nftables"].as_array().into_iter().flatten();
    all.filter_map(|o| o.get("chain"))
        .filter(|c| c["hook"] == "forward" && c["policy"] == "drop")
        .filter_map(|c| Some((c["family"].as_str()?, c["table"].as_str()?)))
        .filter(|(_, table)| !table.starts_with("lyceum-"))
        .map(|(family, table)| format!("{family} {table}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_firewalls_are_named() {
        let chain = |table: &str, hook: &str, policy: &str| serde_json::json!({ "chain": { "family": "ip", "table": table, "name": "C", "hook": hook, "policy": policy } });
        let said = serde_json::json!({ "nftables": [
            { "metainfo": {} },
            chain("filter", "forward", "drop"),
            chain("filter", "input", "drop"),
            chain("nat", "forward", "accept"),
            chain("lyceum-gateway", "forward", "drop"),
        ] });
        assert_eq!(strangers(&said), ["ip filter"]);
        assert!(strangers(&serde_json::Value::Null).is_empty());
    }

    #[test]
    fn a_package_is_named_once() {
        assert_eq!(
            unique(vec!["nftables", "iproute2", "iproute2"]),
            "iproute2 nftables"
        );
        assert!(try_apart("echo why >&2; false").is_err());
    }
}
