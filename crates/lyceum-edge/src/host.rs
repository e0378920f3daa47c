//! The network of a host.

use crate::Repaired;
use crate::firewall::Firewall;
use crate::tool::{BRIDGE, EdgeError, IP, Machine, Result};
use lyceum_net::links::{self, Seen, Step, Tool, Wanted};
use lyceum_net::{HostNetwork, host};

/// The network of a host: bridges, VXLANs, taps, and what desktops may say.
pub struct HostEdge {
    machine: Machine,
    firewall: Firewall,
    wanted: Option<Wanted>,
}

impl HostEdge {
    /// Of that machine. Nothing is touched yet.
    pub fn new(machine: Machine) -> HostEdge {
        let tables = host::FAMILIES.map(|family| (family, host::TABLE)).to_vec();
        HostEdge {
            firewall: Firewall::new(machine.clone(), tables),
            machine,
            wanted: None,
        }
    }

    /// Makes it so. Rules are there before the taps they are for.
    pub async fn apply(&mut self, network: &HostNetwork) -> Result<()> {
        if self.wanted.is_none() {
            not_filtered_twice(&self.machine).await?;
        }
        self.firewall.apply(&host::render(network)).await?;
        let wanted = Wanted::of_host(network);
        link_up(&self.machine, &wanted).await?;
        self.wanted = Some(wanted);
        Ok(())
    }

    /// Looks whether it still is as it was made, puts right what is not, and says what that was.
    pub async fn repair(&mut self) -> Result<Repaired> {
        let mut all = Vec::new();
        all.extend(self.firewall.repair().await?);
        if let Some(wanted) = &self.wanted {
            all.extend(links_repaired(link_up(&self.machine, wanted).await?));
        }
        Ok(Repaired(all))
    }

    /// Takes everything away that it made.
    pub async fn remove(&mut self, network: &HostNetwork) -> Result<()> {
        let none = HostNetwork {
            plugs: Vec::new(),
            ..network.clone()
        };
        link_up(&self.machine, &Wanted::of_host(&none)).await?;
        self.wanted = None;
        self.firewall.remove().await
    }
}

/// What links had to be changed, in words.
pub(crate) fn links_repaired(steps: Vec<Step>) -> Option<String> {
    let first = steps.first()?.command().1;
    Some(format!(
        "the network's devices were changed; put right by {} steps, the first: {first}",
        steps.len()
    ))
}

/// Does what is left to do, and says what that was.
pub(crate) async fn link_up(machine: &Machine, wanted: &Wanted) -> Result<Vec<Step>> {
    let (links, fdb) = tokio::try_join!(
        machine.run(IP, &["-details", "-json", "address", "show"], ""),
        machine.run(BRIDGE, &["-json", "fdb", "show"], ""),
    )?;
    let seen = Seen::read(&links, &fdb).map_err(|e| EdgeError::Failed {
        what: "reading what ip says of the network's devices".into(),
        said: e.to_string(),
    })?;
    let steps = links::steps(wanted, &seen);
    // In their order; one program for as many of them in a row as it can do.
    let mut rest = steps.as_slice();
    while let Some(first) = rest.first() {
        let tool = first.command().0;
        let many = rest.iter().take_while(|s| s.command().0 == tool).count();
        let (now, later) = rest.split_at(many);
        rest = later;
        let batch: String = now.iter().map(|s| s.command().1 + "\n").collect();
        let program = match tool {
            Tool::Ip => IP,
            Tool::Bridge => BRIDGE,
        };
        machine
            .run(program, &["-batch", "-"], &batch)
            .await
            .map_err(|e| match e {
                EdgeError::Failed { what, said } => EdgeError::Failed {
                    what,
                    said: format!(
                        "{said}; the lines were: {}",
                        batch.trim().replace('\n', "; ")
                    ),
                },
                e => e,
            })?;
    }
    Ok(steps)
}

/// Frames that are only bridged must not be taken for packets that this machine forwards.
pub(crate) async fn not_filtered_twice(machine: &Machine) -> Result<()> {
    for what in ["iptables", "ip6tables", "arptables"] {
        let key = format!("net/bridge/bridge-nf-call-{what}");
        if machine.set(&key, "0").await? {
            tracing::info!("set {key} to 0: bridged frames of desktops are filtered as frames");
        }
    }
    Ok(())
}
