//! The network of the gateway.

use crate::Repaired;
use crate::dnsmasq::Servers;
use crate::firewall::Firewall;
use crate::host::{link_up, links_repaired, not_filtered_twice};
use crate::tool::{Machine, Result};
use lyceum_net::links::Wanted;
use lyceum_net::{GatewayNetwork, gateway};
use std::path::Path;

/// The network of the gateway: bridges with addresses, the way out, doors, and DHCP and DNS.
pub struct GatewayEdge {
    machine: Machine,
    firewall: Firewall,
    servers: Servers,
    last: Option<GatewayNetwork>,
}

impl GatewayEdge {
    /// Of that machine; `run_dir` is this gateway's alone. Servers that an earlier one left are ended.
    pub async fn new(machine: Machine, run_dir: &Path) -> Result<GatewayEdge> {
        Ok(GatewayEdge {
            firewall: Firewall::new(machine.clone(), vec![(gateway::FAMILY, gateway::TABLE)]),
            servers: Servers::new(machine.clone(), run_dir).await?,
            machine,
            last: None,
        })
    }

    /// Makes it so. Doors come first: people wait for them.
    pub async fn apply(&mut self, network: &GatewayNetwork) -> Result<()> {
        if self.last.as_ref() == Some(network) {
            return Ok(());
        }
        let learned = self.firewall.learned().await;
        self.firewall
            .apply(&gateway::render(network, &learned))
            .await?;
        let same = |last: &GatewayNetwork| {
            GatewayNetwork {
                doors: Vec::new(),
                ..last.clone()
            } == GatewayNetwork {
                doors: Vec::new(),
                ..network.clone()
            }
        };
        if !self.last.as_ref().is_some_and(same) {
            if network.address.is_some() {
                self.forward().await?;
            }
            link_up(&self.machine, &Wanted::of_gateway(network)).await?;
            let courses = match network.address {
                Some(_) => network.courses.as_slice(),
                None => &[],
            };
            self.servers.apply(courses, &network.upstreams).await?;
        }
        self.last = Some(network.clone());
        Ok(())
    }

    async fn forward(&self) -> Result<()> {
        not_filtered_twice(&self.machine).await?;
        // A machine that forwards no longer listens to routers, unless it is told to: it must not
        // lose its own way out.
        self.machine
            .set("net/ipv6/conf/default/accept_ra", "2")
            .await?;
        for name in self.machine.device_names().await? {
            let key = format!("net/ipv6/conf/{name}/accept_ra");
            self.machine.set_if(&key, "1", "2").await?;
        }
        self.forwards().await.map(drop)
    }

    async fn forwards(&self) -> Result<Option<String>> {
        let mut changed = None;
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            if self.machine.set(key, "1").await? {
                tracing::info!("set {key} to 1: this machine is the desktops' way out");
                changed = Some(format!("{key} was 0: desktops had no way out"));
            }
        }
        Ok(changed)
    }

    /// Looks whether it still is as it was made, puts right what is not, and says what that was.
    pub async fn repair(&mut self) -> Result<Repaired> {
        let mut all = Vec::new();
        all.extend(self.firewall.repair().await?);
        if let Some(network) = &self.last {
            if network.address.is_some() {
                all.extend(self.forwards().await?);
            }
            let steps = link_up(&self.machine, &Wanted::of_gateway(network)).await?;
            all.extend(links_repaired(steps));
            all.extend(self.servers.repair().await?);
        }
        Ok(Repaired(all))
    }

    /// Takes everything away that it made.
    pub async fn remove(mut self) -> Result<()> {
        self.servers.apply(&[], &[]).await?;
        if let Some(network) = &self.last {
            let none = GatewayNetwork {
                courses: Vec::new(),
                ..network.clone()
            };
            link_up(&self.machine, &Wanted::of_gateway(&none)).await?;
        }
        self.firewall.remove().await
    }
}
