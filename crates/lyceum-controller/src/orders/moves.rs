//! Orders to move running desktops, and to empty a host. As with every order, only
//! rows are written; `reconcile::moves` brings it about.

use super::{By, Scope, cluster};
use crate::error::ApiFailure;
use lyceum_model::{
    Desired, DesktopId, Generation, HostId, MoveId, MoveWay, OperationId, Phase, UnixMillis,
};
use lyceum_placement::place;
use lyceum_store::desktops::{self, Desktop, Owner};
use lyceum_store::moves::{self, Move, State};
use lyceum_store::operations::{self, Item, Operation};
use lyceum_store::{Tx, agents};

/// Kind of the operation of one move.
pub const MOVE: &str = "desktop.move";
/// Kind of the operation that empties a host.
pub const DRAIN: &str = "host.drain";

/// Why a desktop can't be moved now, in words; `None`: it can.
pub fn why_not(d: &Desktop) -> Option<&'static str> {
    if matches!(d.owner, Owner::Draft { .. }) {
        return Some("the machine of an open draft can't be moved: seal or close the draft first");
    }
    if d.moving_to.is_some() {
        return Some("it is being moved already: wait until that is over");
    }
    let runs = d.host.is_some()
        && d.desired == Desired::Running
        && d.phase == Phase::Running
        && d.observed_generation == d.generation
        && !d.gave_up;
    (!runs).then_some("it does not run, so there is nothing to move: start it first")
}

/// Chooses where it goes (`to`: there, if it fits) and writes the move. It belongs to `operation`.
#[allow(clippy::too_many_arguments)] // Each is a thing of its own.
pub async fn add(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    operation: &OperationId,
    d: &Desktop,
    to: Option<&HostId>,
    way: Option<MoveWay>,
    reason: &str,
    now: UnixMillis,
) -> Result<Move, ApiFailure> {
    if let Some(why) = why_not(d) {
        return Err(ApiFailure::state(why));
    }
    let Some(from) = d.host.clone() else {
        return Err(ApiFailure::state("it is on no host"));
    };
    if moves::active_tx(tx)
        .await?
        .iter()
        .any(|m| m.desktop == d.id)
    {
        return Err(ApiFailure::state(
            "a move of it was ordered already: wait until that is over, or call it off",
        ));
    }
    let mut hosts = cluster::view(tx, &[d], now).await?;
    for host in &mut hosts {
        if host.id == from {
            host.closed = Some("it is there now".into());
        } else if to.is_some_and(|to| *to != host.id) && host.closed.is_none() {
            host.closed = Some("another host was asked for".into());
        }
    }
    if let Some(to) = to
        && !hosts.iter().any(|h| h.id == *to)
    {
        return Err(ApiFailure::not_found("host"));
    }
    let request = cluster::request(d);
    let plan = place(&hosts, &[request], cluster::policy(settings))
        .map_err(|refusal| ApiFailure::no_room(format!("{refusal}. It goes on where it is")))?;
    let Some(verdict) = plan.into_iter().next() else {
        return Err(ApiFailure::no_room("no host has room for it"));
    };
    let new = Move {
        id: MoveId::new(),
        desktop: d.id.clone(),
        operation: operation.clone(),
        from,
        to: verdict.host.clone(),
        state: State::Waiting,
        cancel: false,
        generation: Generation(0),
        wanted_way: way,
        way: None,
        why: String::new(),
        reason: format!("{reason}; {}", verdict.reason),
        message: String::new(),
        bytes: None,
        pages: None,
        stand_still_ms: None,
        total_ms: None,
        pss_before_kib: None,
        pss_after_kib: None,
        created: now,
        began: None,
        ended: None,
    };
    moves::put(tx, &new).await?;
    let snapshot = serde_json::to_string(&hosts).unwrap_or_default();
    desktops::record_placement(
        tx,
        &desktops::Placement {
            desktop: d.id.clone(),
            at: now,
            host: Some(verdict.host),
            reason: new.reason.clone(),
            snapshot: cluster::snapshot_with(&snapshot, &verdict.others),
        },
    )
    .await?;
    Ok(new)
}

fn running(id: &OperationId, kind: &str, by: &By, scope: Scope, now: UnixMillis) -> Operation {
    Operation {
        id: id.clone(),
        kind: kind.into(),
        target: scope.target,
        target_name: scope.target_name,
        course: scope.course,
        requested_by: by.login.clone(),
        state: "running".into(),
        step: String::new(),
        data: "{}".into(),
        created: now,
        ended: None,
    }
}

/// Moves one desktop.
#[allow(clippy::too_many_arguments)] // Each is a thing of its own.
pub async fn give(
    tx: &mut Tx,
    settings: &lyceum_api::Settings,
    by: &By,
    d: &Desktop,
    name: &str,
    to: Option<&HostId>,
    way: Option<MoveWay>,
    reason: &str,
    now: UnixMillis,
) -> Result<OperationId, ApiFailure> {
    let id = OperationId::new();
    add(tx, settings, &id, d, to, way, reason, now).await?;
    let scope = super::desktop_scope(d, name);
    let item = Item {
        target: format!("desktop/{}", d.id),
        name: name.to_owned(),
        state: "pending".into(),
        message: String::new(),
    };
    operations::insert(tx, &running(&id, MOVE, by, scope, now), &[item]).await?;
    Ok(id)
}

/// Gives a host no more desktops and moves those that are on it away. `names`: of their people.
pub async fn drain(
    tx: &mut Tx,
    by: &By,
    host: &HostId,
    names: impl Fn(&DesktopId) -> String,
    now: UnixMillis,
) -> Result<OperationId, ApiFailure> {
    agents::set_state(tx, host, "draining").await?;
    end_drains(tx, host, "replaced by a newer order", now).await?;
    let id = OperationId::new();
    let items: Vec<Item> = desktops::all_tx(tx)
        .await?
        .iter()
        .filter(|d| d.host.as_ref() == Some(host))
        .map(|d| Item {
            target: format!("desktop/{}", d.id),
            name: names(&d.id),
            state: "pending".into(),
            message: String::new(),
        })
        .collect();
    let scope = Scope {
        target: format!("host/{host}"),
        target_name: host.to_string(),
        course: None,
    };
    let mut operation = running(&id, DRAIN, by, scope, now);
    if items.is_empty() {
        operation.state = "done".into();
        operation.ended = Some(now);
    }
    operations::insert(tx, &operation, &items).await?;
    Ok(id)
}

/// Lets a host take desktops again. What moves already goes on moving.
pub async fn resume(tx: &mut Tx, host: &HostId, now: UnixMillis) -> Result<(), ApiFailure> {
    agents::set_state(tx, host, "active").await?;
    end_drains(tx, host, "the host takes desktops again", now).await
}

async fn end_drains(
    tx: &mut Tx,
    host: &HostId,
    why: &str,
    now: UnixMillis,
) -> Result<(), ApiFailure> {
    let target = format!("host/{host}");
    for operation in operations::running_tx(tx).await? {
        if operation.kind == DRAIN && operation.target == target {
            operations::settle_all(tx, &operation.id, "cancelled", why).await?;
            operations::end(tx, &operation.id, "cancelled", why, now).await?;
        }
    }
    Ok(())
}

/// Calls off the moves of an operation. One that is handed over already can't be.
pub async fn cancel(tx: &mut Tx, operation: &OperationId) -> Result<(), ApiFailure> {
    for mut m in moves::of_operation(tx, operation).await? {
        if !m.state.is_over() {
            m.cancel = true;
            moves::put(tx, &m).await?;
        }
    }
    Ok(())
}
