//! Switches this machine off: only with nothing on it and nothing on its way to it.

use crate::agent::Agent;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use lyceum_wire::ApiError;
use lyceum_wire::extract::Json;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{RwLock, RwLockReadGuard};

/// How long the command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// A machine that is still there after this long was not switched off: it takes desktops again.
const STILL_THERE: Duration = Duration::from_secs(600);

/// Whether this machine is going off. Whoever takes a desktop in holds it for reading meanwhile, so that
/// nothing comes between the look whether all is empty and the end.
#[derive(Default)]
pub(crate) struct GoingOff(RwLock<bool>);

impl GoingOff {
    /// Held while a desktop is taken in; refused when the machine is going off.
    pub(crate) async fn may_take_in(&self) -> Result<RwLockReadGuard<'_, bool>, ApiError> {
        let going = self.0.read().await;
        if *going {
            return Err(ApiError::state(
                "this host is being switched off: start the desktop on another one",
            ));
        }
        Ok(going)
    }
}

/// The request of this file.
pub(crate) fn routes() -> Router<Arc<Agent>> {
    Router::new().route("/v1/power-off", post(power_off))
}

async fn power_off(State(agent): State<Arc<Agent>>) -> Result<Json<()>, ApiError> {
    let Some((program, args)) = agent
        .config
        .power_off
        .as_deref()
        .and_then(<[String]>::split_first)
    else {
        return Err(ApiError::invalid(format!(
            "host {} was not told how to switch its machine off: set power_off in its configuration",
            agent.config.name
        )));
    };
    let mut going = agent.going_off.0.write().await;
    if *going {
        return Ok(Json(()));
    }
    let busy = agent
        .observatory
        .observed()
        .desktops
        .iter()
        .filter(|d| d.phase.may_hold_disk())
        .count()
        .max(agent.instances().len());
    if busy > 0 || agent.observatory.seals_run() {
        return Err(ApiError::state(format!(
            "host {} is not empty ({busy} desktops): move them away first",
            agent.config.name
        )));
    }
    *going = true;
    drop(going);
    tracing::warn!("switching this machine off");
    let run = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let failed = match tokio::time::timeout(COMMAND, run).await {
        Ok(Ok(output)) if output.status.success() => None,
        Ok(Ok(output)) => Some(format!(
            "{program} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
                .chars()
                .take(300)
                .collect::<String>()
                .trim()
        )),
        Ok(Err(e)) => Some(format!("{program} can't be run: {e}")),
        Err(_) => Some(format!("{program} did not end in {} s", COMMAND.as_secs())),
    };
    if let Some(why) = failed {
        *agent.going_off.0.write().await = false;
        return Err(ApiError::state(format!(
            "host {} could not be switched off: {why}; correct power_off in its configuration",
            agent.config.name
        )));
    }
    let later = agent.clone();
    agent.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(STILL_THERE) => *later.going_off.0.write().await = false,
            () = later.shutdown.cancelled() => {}
        }
    });
    Ok(Json(()))
}
