//! Courses' networks on this host: which desktop is plugged in where, and that the system is so.
//!
//! What is wanted is a value ([`HostNetwork`]); whoever changes it waits until it is in force, and
//! everybody who waits is served by one turn. It is kept in a file, so that desktops which outlived the
//! agent have their rules, whatever became of them meanwhile.

use crate::HostError;
use crate::agent::Agent;
use lyceum_edge::{EdgeError, HostEdge, Machine};
use lyceum_hypervisor::NicLink;
use lyceum_model::DesktopId;
use lyceum_net::wanted::Uplink;
use lyceum_net::{HostNetwork, LinkName, Plug};
use lyceum_proto::host::{NetworkFacts, NetworkRepaired, NetworkRequest, NicRequest};
use lyceum_proto::{ErrorBody, code};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks whether somebody changed something.
const LOOK: Duration = Duration::from_secs(5);

/// How a host takes part in courses' networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum NetworkConfig {
    /// A bridge per course, and VXLAN to the other machines.
    Vxlan {
        /// This machine's address in the network between them.
        address: IpAddr,
    },
    /// All desktops on a bridge that is there already.
    Lan {
        /// Its name.
        bridge: LinkName,
    },
}

impl NetworkConfig {
    fn uplink(&self) -> Uplink {
        match self {
            NetworkConfig::Vxlan { address } => Uplink::Vxlan { address: *address },
            NetworkConfig::Lan { bridge } => Uplink::Lan {
                bridge: bridge.clone(),
            },
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    told: NetworkRequest,
    plugs: BTreeMap<DesktopId, Plug>,
}

struct Wanted {
    kept: Kept,
    /// Grows with every change.
    turn: u64,
    problem: Option<String>,
    repaired: Option<NetworkRepaired>,
}

/// The network of this host; clones share it. Without a configuration there is none.
#[derive(Clone)]
pub(crate) struct Network(Option<Arc<Inner>>);

struct Inner {
    uplink: Uplink,
    file: PathBuf,
    wanted: Mutex<Wanted>,
    /// With the turn that is in force.
    edge: tokio::sync::Mutex<(HostEdge, u64)>,
}

fn refuse(message: String) -> ErrorBody {
    ErrorBody {
        code: code::STATE.into(),
        message,
    }
}

impl Network {
    /// As it was left. Nothing is touched yet.
    pub(crate) fn open(
        config: Option<&NetworkConfig>,
        state_dir: &Path,
    ) -> Result<Network, HostError> {
        let Some(config) = config else {
            return Ok(Network(None));
        };
        let file = state_dir.join("network.json");
        let kept = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| {
                HostError::Config(format!(
                    "{} can't be read ({e}): remove it, the controller tells its contents again",
                    file.display()
                ))
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(e) => return Err(HostError::file("reading", &file, e)),
        };
        Ok(Network(Some(Arc::new(Inner {
            uplink: config.uplink(),
            file,
            wanted: Mutex::new(Wanted {
                kept,
                turn: 1,
                problem: None,
                repaired: None,
            }),
            edge: tokio::sync::Mutex::new((HostEdge::new(Machine::this()), 0)),
        }))))
    }

    /// What the controller is told of it.
    pub(crate) fn facts(&self) -> Option<NetworkFacts> {
        let inner = self.0.as_ref()?;
        let wanted = inner.lock();
        Some(NetworkFacts {
            uplink: inner.uplink.clone(),
            problem: wanted.problem.clone(),
            repaired: wanted.repaired.clone(),
        })
    }

    /// The link of a card that is about to be used. For a card in a course's network: it is there, with
    /// its rules.
    pub(crate) async fn link(
        &self,
        desktop: &DesktopId,
        nic: &NicRequest,
    ) -> Result<NicLink, ErrorBody> {
        let Some(plug) = nic.plug else {
            let [a, b, c, _] = nic.address.octets();
            return Ok(NicLink::User {
                network: format!("{a}.{b}.{c}.0/24"),
                address: nic.address,
                outside: nic.outside,
            });
        };
        let inner = self.0.as_ref().ok_or_else(|| {
            refuse("the desktop belongs into its course's network, and this host has none: add [host.network] to its configuration".into())
        })?;
        if plug.mac.to_string() != nic.mac.to_ascii_lowercase() {
            return Err(ErrorBody {
                code: code::INVALID.into(),
                message: format!(
                    "the card is {}, but {} is to be plugged in",
                    nic.mac, plug.mac
                ),
            });
        }
        let turn = inner.change(|kept| {
            if plug.among_themselves {
                kept.told.among_themselves.insert(plug.segment.number);
            }
            kept.plugs.insert(desktop.clone(), plug) != Some(plug)
        });
        inner.reach(turn).await.map_err(|e| {
            refuse(format!(
                "the desktop can't be plugged into its course's network: {e}"
            ))
        })?;
        Ok(NicLink::Tap {
            name: plug.tap().to_string(),
            address: plug.v4,
        })
    }

    /// There is no machine any more.
    pub(crate) fn unplug(&self, agent: &Arc<Agent>, desktop: &DesktopId) {
        let Some(inner) = self.0.clone() else {
            return;
        };
        if !inner.lock().kept.plugs.contains_key(desktop) {
            return;
        }
        let turn = inner.change(|kept| kept.plugs.remove(desktop).is_some());
        agent.spawn(async move {
            // Should it fail, the next look tries again.
            if let Err(e) = inner.reach(turn).await {
                tracing::warn!("{e}");
            }
        });
    }

    /// What the controller says of all courses' networks.
    pub(crate) async fn tell(&self, request: NetworkRequest) -> Result<(), ErrorBody> {
        let inner = self.0.as_ref().ok_or_else(|| {
            refuse("this host takes no part in courses' networks: add [host.network] to its configuration".into())
        })?;
        let turn = inner.change(|kept| {
            let new = kept.told != request;
            kept.told = request;
            new
        });
        inner.reach(turn).await.map_err(|e| refuse(e.to_string()))
    }

    /// After a start, when it is known which machines outlived the agent.
    pub(crate) fn forget_gone(&self, agent: &Agent) {
        let Some(inner) = &self.0 else {
            return;
        };
        let here: Vec<DesktopId> = agent.instances().into_iter().map(|(id, _)| id).collect();
        inner.change(|kept| {
            let before = kept.plugs.len();
            // Of a machine that could not be taken over yet nobody has spoken.
            kept.plugs
                .retain(|id, _| here.contains(id) || agent.desktop(id).is_none());
            kept.plugs.len() != before
        });
    }

    /// Keeps it so until the agent ends.
    pub(crate) async fn run(self, agent: Arc<Agent>) {
        let Some(inner) = self.0 else {
            return;
        };
        loop {
            let turn = inner.lock().turn;
            let done = match inner.reach(turn).await {
                Ok(()) => inner.edge.lock().await.0.repair().await.map(Some),
                Err(e) => {
                    tracing::warn!("{e}");
                    Ok(None)
                }
            };
            match done {
                Ok(Some(repaired)) => {
                    // It could be looked at and is in order, whatever was the matter before.
                    let mut wanted = inner.lock();
                    wanted.problem = None;
                    for what in &repaired.0 {
                        tracing::warn!(
                            "somebody changed this host's network, and it was put right: {what}"
                        );
                    }
                    if !repaired.0.is_empty() {
                        wanted.repaired = Some(NetworkRepaired {
                            what: repaired.0.join("; "),
                            at: crate::observe::now(),
                        });
                    }
                }
                Ok(None) => {}
                Err(e) => inner.lock().problem = Some(e.to_string()),
            }
            tokio::select! {
                () = agent.shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        // Nothing in here is left half-changed by a panic.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wanted, if the change says that it is one; the turn to wait for.
    fn change(&self, edit: impl FnOnce(&mut Kept) -> bool) -> u64 {
        let mut wanted = self.lock();
        if edit(&mut wanted.kept) {
            wanted.turn += 1;
        }
        wanted.turn
    }

    fn network(&self) -> (HostNetwork, Kept, u64) {
        let wanted = self.lock();
        let Kept { told, plugs } = wanted.kept.clone();
        let own = match self.uplink {
            Uplink::Vxlan { address } => Some(address),
            Uplink::Lan { .. } => None,
        };
        let network = HostNetwork {
            uplink: self.uplink.clone(),
            members: told.members.clone(),
            gateway_here: own.is_some() && told.gateway == own,
            plugs: plugs
                .values()
                .map(|plug| Plug {
                    among_themselves: told.among_themselves.contains(&plug.segment.number),
                    ..*plug
                })
                .collect(),
        };
        (network, wanted.kept.clone(), wanted.turn)
    }

    /// Waits until that turn or a later one is in force.
    async fn reach(&self, turn: u64) -> Result<(), EdgeError> {
        let mut edge = self.edge.lock().await;
        if edge.1 >= turn {
            return Ok(());
        }
        let (network, kept, now) = self.network();
        self.keep(&kept);
        let done = edge.0.apply(&network).await;
        self.lock().problem = done.as_ref().err().map(ToString::to_string);
        done?;
        edge.1 = now;
        Ok(())
    }

    fn keep(&self, kept: &Kept) {
        let new = self.file.with_extension("new");
        let written = serde_json::to_vec(kept)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &self.file));
        // The system has it, and the controller tells it again.
        if let Err(e) = written {
            tracing::warn!("{} could not be written: {e}", self.file.display());
        }
    }
}
