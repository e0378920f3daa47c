//! From a [`RunRequest`] to what the hypervisor is told, with all that has to be
//! checked before: tiers, files, the release's bytes, whether a fork is possible.

use crate::agent::Agent;
use lyceum_hypervisor::{Identity, Nic, StartError, StartFrom, StartRequest};
use lyceum_model::disk::layout;
use lyceum_model::{DesktopId, DiskRef, MoveWay, Platform, ReleaseId};
use lyceum_proto::host::{RunRequest, StartMode};
use lyceum_proto::{ErrorBody, code};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Ready to be started.
pub(crate) struct Prepared {
    pub(crate) request: StartRequest,
    /// `fork`, `resume`, `hand_out` or `cold`.
    pub(crate) started_by: &'static str,
    pub(crate) cold_reason: Option<String>,
    /// Whether it may be booted cold when the hypervisor refuses.
    may_be_cold: bool,
    /// One of the starts at once.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Prepared {
    /// How long it may take until it is usable.
    pub(crate) fn ready_timeout(&self) -> Duration {
        Duration::from_millis(self.request.ready_timeout_ms)
    }
}

fn invalid(message: impl Into<String>) -> ErrorBody {
    ErrorBody {
        code: code::INVALID.into(),
        message: message.into(),
    }
}

/// The release a request rests on, if any.
pub(crate) fn release_of(request: &RunRequest) -> Option<&ReleaseId> {
    match &request.start {
        StartMode::Fork { release }
        | StartMode::Resume { release, .. }
        | StartMode::HandOut { release, .. }
        | StartMode::Arrive { release, .. } => Some(release),
        StartMode::Cold { .. } => request.disk.release(),
    }
}

/// What is wrong with a request whatever the state of the host is.
pub(crate) fn check(request: &RunRequest) -> Result<(), ErrorBody> {
    request.size.check().map_err(|e| invalid(e.to_string()))?;
    if let (Some(release), Some(under)) = (release_of(request), request.disk.release())
        && release != under
    {
        return Err(invalid(format!(
            "the desktop is to start from release {release}, but its disk lies over {under}"
        )));
    }
    if !matches!(request.start, StartMode::Cold { .. })
        && matches!(request.disk, DiskRef::Qcow2Draft { .. })
    {
        return Err(invalid("a draft's disk can only be booted cold"));
    }
    if let Some(identity) = &request.identity
        && (identity.machine_id.len() != 32
            || !identity
                .machine_id
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    {
        return Err(invalid("machine_id must be 32 lower-case hex digits"));
    }
    let renews = matches!(
        request.start,
        StartMode::Fork { .. } | StartMode::HandOut { .. }
    );
    if renews && request.identity.is_none() {
        return Err(invalid(
            "a fork needs an identity of its own: nobody may get another desktop's",
        ));
    }
    if let Some(nic) = &request.nic
        && !valid_mac(&nic.mac)
    {
        return Err(invalid(format!(
            "{:?} is not a MAC address like 52:54:00:12:34:56",
            nic.mac
        )));
    }
    if request.ready_timeout_ms == 0 {
        return Err(invalid("ready_timeout_ms must be 1 or more"));
    }
    Ok(())
}

fn valid_mac(mac: &str) -> bool {
    let parts: Vec<&str> = mac.split(':').collect();
    parts.len() == 6
        && mac.starts_with("52:54:00:")
        && parts
            .iter()
            .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a desktop that runs on that platform and with those tiers can go on here.
pub(crate) fn can_arrive(
    agent: &Agent,
    platform: &Platform,
    tiers: Option<&str>,
) -> Result<(), ErrorBody> {
    if let Some(difference) = platform.difference(&agent.platform) {
        return Err(invalid(format!(
            "host {} can't take it in: {difference}; a running desktop needs the same on both hosts",
            agent.config.name
        )));
    }
    let own = agent.tiers.identity();
    if tiers.is_some() && own.is_some() && tiers != own.as_deref() {
        return Err(invalid(format!(
            "host {} has other tiers mounted than the host it is on: mount the same ones",
            agent.config.name
        )));
    }
    Ok(())
}

/// Checks everything and waits for its turn. Dropping the future calls it off.
pub(crate) async fn prepare(
    agent: Arc<Agent>,
    desktop: DesktopId,
    run: RunRequest,
) -> Result<Prepared, ErrorBody> {
    agent.tiers.check()?;
    let cdrom = match &run.start {
        StartMode::Cold { cdrom, .. } => cdrom.as_ref(),
        _ => None,
    };
    let mut disk = agent.tiers.disk(&run.disk, run.durability, cdrom)?;
    let (folder, manifest) = match release_of(&run) {
        Some(release) => {
            let (folder, manifest) = agent.release(release).await?;
            (Some(folder), Some(manifest))
        }
        None => (None, None),
    };
    if let (Some(folder), Some(base)) = (&folder, &mut disk.base) {
        *base = folder.join(layout::RELEASE_DISK);
    }
    let sealed = |release: &ReleaseId| {
        let folder = folder.clone();
        crate::tiers::sealed(
            release,
            folder.unwrap_or_else(|| agent.tiers.release(release)),
        )
    };
    let why_cold = manifest
        .as_ref()
        .and_then(|m| m.why_cold(run.size, &agent.platform));
    let needs_memory = |what: &str| match &why_cold {
        Some(why) => Err(invalid(format!(
            "{what}: {why}; what was saved is untouched, its disk can be booted"
        ))),
        None => Ok(()),
    };
    let (from, started_by, cold_reason) = match &run.start {
        StartMode::Fork { release } => match why_cold.clone() {
            None => {
                let sealed = sealed(release);
                (StartFrom::Fork { sealed }, "fork", None)
            }
            why => (StartFrom::Cold, "cold", why),
        },
        StartMode::Resume { release, delta } => {
            needs_memory("the desktop can't be brought back here")?;
            let (sealed, delta) = (sealed(release), agent.tiers.delta(delta));
            (StartFrom::Resume { sealed, delta }, "resume", None)
        }
        StartMode::HandOut { release, delta } => {
            needs_memory("the desktop can't be handed out here")?;
            let (sealed, delta) = (sealed(release), agent.tiers.delta(delta));
            (StartFrom::HandOut { sealed, delta }, "hand_out", None)
        }
        StartMode::Arrive { release, way, .. } => {
            let sealed = match way {
                MoveWay::Delta => {
                    needs_memory("the desktop can't be taken in here as a delta")?;
                    Some(sealed(release))
                }
                MoveWay::Live => None,
            };
            // What came with all of its memory is like a cold boot from now on: it shares nothing.
            let by = if sealed.is_some() { "move" } else { "cold" };
            (StartFrom::Arrive { sealed }, by, None)
        }
        StartMode::Cold { reason, .. } => (StartFrom::Cold, "cold", reason.clone()),
    };
    let fork = matches!(run.start, StartMode::Fork { .. });
    let mut prepared = Prepared {
        request: StartRequest {
            run_dir: agent.config.desktop_run_dir(&desktop),
            desktop,
            generation: run.generation,
            size: run.size,
            disk,
            from,
            vm_generation_id: run.vm_generation_id,
            identity: run.identity.map(|i| Identity {
                hostname: i.hostname,
                machine_id: i.machine_id,
            }),
            nic: None,
            spice: run.spice,
            ready_timeout_ms: run.ready_timeout_ms,
        },
        started_by,
        cold_reason,
        may_be_cold: fork,
        permit: None,
    };
    if fork && started_by == "cold" {
        cold_takes_longer(&agent, &mut prepared.request);
    }
    prepared.permit = agent.start_slot(started_by == "cold").await;
    if let Some(nic) = run.nic {
        let link = agent.network.link(&prepared.request.desktop, &nic).await?;
        prepared.request.nic = Some(Nic { mac: nic.mac, link });
    }
    Ok(prepared)
}

/// The caller gave the time a fork may take.
fn cold_takes_longer(agent: &Agent, request: &mut StartRequest) {
    request.ready_timeout_ms = request.ready_timeout_ms.max(agent.config.cold_ready_ms);
}

/// Starts it; boots it cold where a fork is not possible and that is allowed. Not to be dropped before it is done.
pub(crate) async fn launch(
    agent: Arc<Agent>,
    mut prepared: Prepared,
) -> (
    Prepared,
    Result<Arc<dyn lyceum_hypervisor::Instance>, StartError>,
) {
    let result = agent.hypervisor.start(prepared.request.clone()).await;
    let why = match result {
        Err(StartError::NotForkable(why)) if prepared.may_be_cold => why,
        result => return (prepared, result),
    };
    prepared.request.from = StartFrom::Cold;
    prepared.started_by = "cold";
    prepared.cold_reason = Some(why);
    prepared.may_be_cold = false;
    cold_takes_longer(&agent, &mut prepared.request);
    let result = agent.hypervisor.start(prepared.request.clone()).await;
    (prepared, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        assert!(valid_mac("52:54:00:ab:cd:01"));
        for mac in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:0g",
            "00:00:00:00:00:00",
            "52:54:00:ab:cd:01,x=y",
        ] {
            assert!(!valid_mac(mac), "{mac:?}");
        }
    }
}
