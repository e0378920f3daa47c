//! Clients for the agents that joined: one per agent, made again when its
//! address changes.

use lyceum_model::HostId;
use lyceum_store::{Store, StoreError};
use lyceum_wire::{Client, ClientError, Identity, Peer, PeerKind};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No such agent.
    #[error("no {kind} named {id} has joined: see `lyceum host list`")]
    NotJoined {
        /// `host` or `storage`.
        kind: &'static str,
        /// The name.
        id: String,
    },
    /// No storage agent at all.
    #[error("no file server has joined yet: start `lyceum storage --join TOKEN` first")]
    NoStorage,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] ClientError),
}

impl AgentError {
    /// The agent's error code, when it answered with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            AgentError::Call(e) => e.code(),
            _ => None,
        }
    }

    /// Whether the agent may not have heard at all, so that it is worth trying again.
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            AgentError::Call(ClientError::Unreachable { .. } | ClientError::Timeout { .. })
        )
    }
}

/// Clients by agent. Cheap to clone.
#[derive(Clone)]
pub struct Agents {
    store: Store,
    identity: Arc<Identity>,
    clients: Arc<Mutex<HashMap<HostId, (String, Client)>>>,
}

impl Agents {
    /// `identity` is the controller's own.
    pub fn new(store: Store, identity: Arc<Identity>) -> Agents {
        Agents {
            store,
            identity,
            clients: Arc::default(),
        }
    }

    /// The client of a host agent.
    pub async fn host(&self, id: &HostId) -> Result<Client, AgentError> {
        let agent = lyceum_store::agents::get(&self.store, id)
            .await?
            .filter(|a| a.kind == "host")
            .ok_or_else(|| AgentError::NotJoined {
                kind: "host",
                id: id.to_string(),
            })?;
        self.client(PeerKind::Host, &agent)
    }

    /// The client of the storage agent. There is one; when a second one joined by mistake, the first counts.
    pub async fn storage(&self) -> Result<Client, AgentError> {
        let agent = lyceum_store::agents::list(&self.store, "storage")
            .await?
            .into_iter()
            .min_by_key(|a| a.joined)
            .ok_or(AgentError::NoStorage)?;
        self.client(PeerKind::Storage, &agent)
    }

    fn client(
        &self,
        kind: PeerKind,
        agent: &lyceum_store::agents::Agent,
    ) -> Result<Client, AgentError> {
        // A poisoned lock only means that another thread panicked while it held plain data.
        let mut clients = self.clients.lock().unwrap_or_else(|p| p.into_inner());
        if let Some((url, client)) = clients.get(&agent.id)
            && *url == agent.url
        {
            return Ok(client.clone());
        }
        let client = Client::new(
            &self.identity,
            &agent.url,
            &Peer::new(kind, agent.id.clone()),
        )?;
        clients.insert(agent.id.clone(), (agent.url.clone(), client.clone()));
        Ok(client)
    }
}
