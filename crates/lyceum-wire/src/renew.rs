//! An agent's certificate is renewed while it runs.
//!
//! ```text
//!   agent: a third of its time is left ── POST /renew, mutual TLS with the present one ──► controller
//!   controller: still one of mine? ── ClassroomCa::sign ──► agent: identity.json, new connections use it
//! ```
//!
//! Connections that are there go on with the certificate they began with.

use crate::join::signing_request;
use crate::{Client, ClientError, Identity, Peer, WireError};
use lyceum_proto::join::{JoinResponse, RenewRequest};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often an agent looks whether it is time.
const LOOK: Duration = Duration::from_secs(3600);
/// How often it is tried again when it is and did not work.
const AGAIN: Duration = Duration::from_secs(600);

/// An agent's identity as it is now.
#[derive(Debug, Clone)]
pub struct Renewing {
    state_dir: PathBuf,
    current: Arc<watch::Sender<Identity>>,
}

impl Renewing {
    /// Of the agent whose identity lies in this directory.
    pub fn new(identity: Identity, state_dir: PathBuf) -> Renewing {
        Renewing {
            state_dir,
            current: Arc::new(watch::channel(identity).0),
        }
    }

    /// As it is now.
    pub fn current(&self) -> Identity {
        self.current.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Identity> {
        self.current.subscribe()
    }

    /// Renews the certificate whenever it is time, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            let due = self.current().validity().is_ok_and(|v| is_due(&v, now()));
            let wait = if due {
                match self.renew().await {
                    Ok(()) => LOOK,
                    Err(e) => {
                        tracing::warn!(
                            "this agent's certificate ends soon and could not be renewed: {e}"
                        );
                        AGAIN
                    }
                }
            } else {
                LOOK
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Renews it now, with a new key.
    pub async fn renew(&self) -> Result<(), WireError> {
        let present = self.current();
        let controller = present
            .controller()
            .ok_or_else(|| {
                WireError::Certificate(
                    "this agent joined before certificates were renewed: remove its identity.json and join it with a new token".into(),
                )
            })?
            .to_owned();
        let key = rcgen::KeyPair::generate()?;
        let request = RenewRequest {
            csr_pem: signing_request(&key)?,
        };
        let client = Client::new(&present, &controller, &Peer::controller())
            .map_err(|e| WireError::Renew(Box::new(e)))?;
        let response: JoinResponse = client
            .post("/renew", &request)
            .await
            .map_err(|e: ClientError| WireError::Renew(Box::new(e)))?;
        let next = Identity::new(
            present.peer().clone(),
            response.certificate_pem,
            key.serialize_pem(),
            response.ca_pem,
        )?
        .joined_at(Some(controller));
        if next.ca_fingerprint() != present.ca_fingerprint() {
            return Err(WireError::Certificate(
                "the controller answered with another CA than this agent joined".into(),
            ));
        }
        // On disk before anybody sees it.
        next.save(&self.state_dir)?;
        self.current.send_replace(next);
        tracing::info!("this agent's certificate was renewed");
        Ok(())
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

/// Whether less than a third of a certificate's time is left.
fn is_due(validity: &std::ops::Range<i64>, now: i64) -> bool {
    let life = validity.end.saturating_sub(validity.start);
    validity.end.saturating_sub(now) < life / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_when_a_third_is_left() {
        let validity = 0..300;
        assert!(!is_due(&validity, 0));
        assert!(!is_due(&validity, 200));
        assert!(is_due(&validity, 201));
        assert!(is_due(&validity, 1000), "also when it is too late");
        assert!(!is_due(&validity, -5), "a clock that is behind");
    }
}
