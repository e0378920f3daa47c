//! The way from a process to a usable desktop.
//!
//! ```text
//! Fork      load the sealed state ── go ──┬─ identity ── plug NIC ── address ─┐
//! HandOut   write pages, load, link off ── go ──┬─ old NIC out ─┐             │
//!                                               ├─ identity ────┴─ plug NIC ──┤
//! Resume    write pages, load ── go ──┬─ clock ── address ────────────────────┤
//! Cold      boot until ready ── identity ── plug NIC ── address ──────────────┤
//!                                     └─ first whole picture ─────────────────┴─► Running
//! ```
//!
//! **Invariant: no network card before the identity is new**, and no machine that failed
//! on the way goes on: it is killed, and its state says what failed.

use crate::instance::QemuInstance;
use crate::machine::{self, NETDEV, NIC, RAM_BLOCK};
use crate::pages::{Memory, RamBlock, parse_ram_blocks};
use crate::qmp::Event;
use crate::rfb;
use crate::util::{blocking, within};
use lyceum_delta::Delta;
use lyceum_hypervisor::{HypervisorError, Instance, Nic, StartFrom, Usable};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long loading device state may take: it is a megabyte at most.
const LOAD_PATIENCE: Duration = Duration::from_secs(60);
/// How often a booting guest without a helper is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The size of the firmware's text screen: no desktop's picture.
const TEXT_SCREEN: (u16, u16) = (720, 400);

type Result<T> = std::result::Result<T, HypervisorError>;

/// Brings a machine from its process to usable, or ends it with the reason. A machine whose
/// cold boot an earlier agent began is brought on the same way.
pub(crate) fn spawn(instance: Arc<QemuInstance>, delta: Option<Delta>) {
    if matches!(instance.request.from, StartFrom::Arrive { .. }) {
        instance.set_step("waiting for the desktop to arrive");
        tokio::spawn(crate::arrive::wait(instance));
        return;
    }
    let watched = Arc::clone(&instance);
    let work = tokio::spawn(drive(instance, delta));
    tokio::spawn(async move {
        // Should it ever panic: a desktop that is starting for ever is the worst answer.
        if work.await.is_err_and(|e| e.is_panic()) {
            watched.note_end(
                "an internal error of the host agent; its log says more",
                false,
            );
            if let Err(e) = watched.process.kill().await {
                tracing::error!(error = %e, "a failed start could not be ended");
            }
        }
    });
}

async fn drive(instance: Arc<QemuInstance>, delta: Option<Delta>) {
    let limit = Duration::from_millis(instance.request.ready_timeout_ms);
    let work = async {
        match tokio::time::timeout(limit, run(&instance, delta)).await {
            Ok(result) => result,
            Err(_) => {
                let at = match instance.state() {
                    lyceum_hypervisor::InstanceState::Starting { step } => step,
                    _ => "the last step".into(),
                };
                Err(HypervisorError::State(format!(
                    "it was not usable within {:.1} s: it was still at: {at}",
                    limit.as_secs_f64()
                )))
            }
        }
    };
    let result = tokio::select! {
        biased;
        // Whoever ends it says why.
        () = instance.ending.cancelled() => return,
        result = work => result,
        _ = instance.wait_ended() => return,
    };
    if let Err(e) = result {
        // When QEMU itself ended, that is the reason and not the broken connection.
        let gone = tokio::time::timeout(Duration::from_millis(200), instance.wait_ended()).await;
        if gone.is_err() {
            instance.note_end(format!("the desktop could not be started: {e}"), false);
            if let Err(e) = instance.process.kill().await {
                tracing::error!(desktop = %instance.request.desktop, error = %e, "a failed start could not be ended");
            }
        }
    }
}

async fn run(instance: &QemuInstance, delta: Option<Delta>) -> Result<()> {
    let usable = match &instance.request.from {
        StartFrom::Fork { .. } => fork(instance).await?,
        StartFrom::Resume { .. } => resume(instance, delta).await?,
        StartFrom::HandOut { .. } => hand_out(instance, delta).await?,
        StartFrom::Cold => cold(instance).await?,
        // Never driven: it waits for what comes.
        StartFrom::Arrive { .. } => return Ok(()),
        StartFrom::ColdForSeal { .. } => {
            until_helper_ready(instance).await?;
            let (_, picture_ms) = picture(instance).await?;
            Usable {
                guest_helper: true,
                picture_ms,
                ..Usable::default()
            }
        }
    };
    instance.set_running(usable).await
}

async fn fork(instance: &QemuInstance) -> Result<Usable> {
    instance.set_step("loading memory");
    load(instance).await?;
    go(instance).await?;
    instance.set_step("identity");
    let (usable, (_, picture_ms)) =
        tokio::try_join!(renew(instance, Guest::Present), picture(instance))?;
    Ok(Usable {
        picture_ms,
        ..usable
    })
}

async fn resume(instance: &QemuInstance, delta: Option<Delta>) -> Result<Usable> {
    let delta = delta.ok_or_else(|| HypervisorError::State("a resume without a delta".into()))?;
    let saved_nic = delta.header().nic_mac.is_some();
    instance.set_step("loading memory");
    write_pages(instance, delta).await?;
    load(instance).await?;
    go(instance).await?;
    instance.set_step("clock and address");
    let nic = async {
        instance.guest.set_time(limit(instance)).await?;
        match &instance.request.nic {
            // Its card came with it; its lease is looked at again.
            Some(nic) if saved_nic => address(instance, nic).await,
            Some(nic) => {
                plug(instance, nic).await?;
                address(instance, nic).await
            }
            None => Ok(Usable::default()),
        }
    };
    let (usable, (_, picture_ms)) = tokio::try_join!(nic, picture(instance))?;
    Ok(Usable {
        picture_ms,
        guest_helper: true,
        ..usable
    })
}

async fn hand_out(instance: &QemuInstance, delta: Option<Delta>) -> Result<Usable> {
    let delta = delta.ok_or_else(|| HypervisorError::State("a hand-out without a delta".into()))?;
    let saved_nic = delta.header().nic_mac.is_some();
    instance.set_step("loading memory");
    write_pages(instance, delta).await?;
    load(instance).await?;
    if saved_nic {
        instance
            .qmp
            .execute("set_link", json!({ "name": NIC, "up": false }))
            .await?;
    }
    go(instance).await?;
    instance.set_step("identity");
    let old = if saved_nic {
        Guest::HasOldNic
    } else {
        Guest::Present
    };
    let (usable, (_, picture_ms)) = tokio::try_join!(renew(instance, old), picture(instance))?;
    Ok(Usable {
        picture_ms,
        ..usable
    })
}

async fn cold(instance: &QemuInstance) -> Result<Usable> {
    instance.set_step("booting");
    if instance.request.identity.is_none() {
        // A draft is for a person who looks at its console, also while it boots.
        let picture_ms = loop {
            let (seen, ms) = picture(instance).await?;
            if !seen.blank {
                break ms;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        return Ok(Usable {
            picture_ms,
            ..Usable::default()
        });
    }
    tokio::select! {
        ready = until_helper_ready(instance) => {
            ready?;
            instance.set_step("identity");
            let (usable, (_, picture_ms)) = tokio::try_join!(renew(instance, Guest::Present), picture(instance))?;
            Ok(Usable { picture_ms, ..usable })
        }
        seen = until_surely_without_helper(instance) => {
            let picture_ms = seen?;
            if let Some(nic) = &instance.request.nic {
                plug(instance, nic).await?;
            }
            Ok(Usable { picture_ms, guest_helper: false, ..Usable::default() })
        }
    }
}

/// Questions to the guest are bounded by the start as a whole, which knows better what is
/// being waited for; this limit is a little longer.
fn limit(instance: &QemuInstance) -> Duration {
    Duration::from_millis(instance.request.ready_timeout_ms) + Duration::from_secs(30)
}

/// Gives QEMU the device state and waits until it has it.
pub(crate) async fn load(instance: &QemuInstance) -> Result<()> {
    let mut events = instance.qmp.events();
    // The disk of a machine that arrives is another one's until it takes over.
    let arrives = matches!(instance.request.from, StartFrom::Arrive { .. });
    // State that was saved alone knows nothing of it, and has no memory in it.
    let forks = matches!(instance.request.from, StartFrom::Fork { .. });
    let capabilities = json!({ "capabilities": [
        { "capability": "x-ignore-shared", "state": forks },
        { "capability": "events", "state": true },
        { "capability": "late-block-activate", "state": arrives },
    ] });
    instance
        .qmp
        .execute("migrate-set-capabilities", capabilities)
        .await?;
    instance
        .qmp
        .execute(
            "migrate-incoming",
            json!({ "uri": machine::device_state_uri() }),
        )
        .await?;
    let loaded = events
        .wait_for(
            "loading the device state",
            LOAD_PATIENCE,
            |event| match event {
                Event::Migration { status } if status == "completed" => Some(true),
                Event::Migration { status } if status == "failed" => Some(false),
                _ => None,
            },
        )
        .await?;
    // QEMU has read it, if it was this one's own.
    let _ = std::fs::remove_file(instance.dir.incoming());
    match loaded {
        true => Ok(()),
        false => {
            let why = crate::util::last_lines(&instance.dir.log());
            Err(HypervisorError::Refused {
                command: "migrate-incoming".into(),
                message: why,
            })
        }
    }
}

async fn go(instance: &QemuInstance) -> Result<()> {
    instance.qmp.execute("cont", Value::Null).await.map(drop)
}

/// RAM blocks of the machine: the one that is shared, and the others.
pub(crate) async fn ram_blocks(instance: &QemuInstance) -> Result<(RamBlock, Vec<RamBlock>)> {
    let answer = instance
        .qmp
        .execute("x-query-ramblock", Value::Null)
        .await?;
    let text = answer["human-readable-text"].as_str().unwrap_or("");
    let mut blocks = parse_ram_blocks(text).map_err(HypervisorError::State)?;
    let expected = u64::from(instance.request.size.memory_mib) << 20;
    match blocks
        .iter()
        .position(|b| b.name == RAM_BLOCK && b.bytes == expected)
    {
        Some(at) => Ok((blocks.remove(at), blocks)),
        None => Err(HypervisorError::State(format!(
            "QEMU lists no RAM block {RAM_BLOCK:?} of {expected} bytes"
        ))),
    }
}

/// Puts a delta's pages into the machine, which has not run yet.
async fn write_pages(instance: &QemuInstance, delta: Delta) -> Result<()> {
    let (ram, others) = ram_blocks(instance).await?;
    let pid = instance.process.mark.pid;
    blocking(move || {
        let mut memory = Memory::open(pid, true)?;
        // Names and sizes are compared before the first byte is written.
        let names = &delta.blocks().part().blocks;
        let mut targets = Vec::with_capacity(names.len());
        for block in names {
            match others.iter().find(|b| b.name == block.name && b.bytes == block.bytes) {
                Some(target) => targets.push(target),
                None => {
                    return Err(HypervisorError::State(format!(
                        "the saved desktop has a RAM block {:?} of {} bytes, this QEMU's machine has not",
                        block.name, block.bytes
                    )));
                }
            }
        }
        delta.pages().for_each::<Failed>(|_, offset, bytes| Ok(memory.write_differing(&ram, offset, bytes)?))?;
        delta.blocks().for_each::<Failed>(|block, offset, bytes| match targets.get(block as usize) {
            Some(target) => Ok(memory.write_differing(target, offset, bytes)?),
            None => Ok(()),
        })?;
        Ok(())
    })
    .await
}

/// An error of either side of a copy.
struct Failed(HypervisorError);

impl From<lyceum_delta::DeltaError> for Failed {
    fn from(e: lyceum_delta::DeltaError) -> Failed {
        Failed(crate::save::delta_error(e))
    }
}
impl From<HypervisorError> for Failed {
    fn from(e: HypervisorError) -> Failed {
        Failed(e)
    }
}
impl From<Failed> for HypervisorError {
    fn from(e: Failed) -> HypervisorError {
        e.0
    }
}

/// What the helper finds when it is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guest {
    Present,
    /// The network card of the desktop that this one is a copy of.
    HasOldNic,
}

/// New identity, and only then the network card and its address.
async fn renew(instance: &QemuInstance, guest: Guest) -> Result<Usable> {
    let mut usable = Usable {
        guest_helper: true,
        ..Usable::default()
    };
    let identity = async {
        match &instance.request.identity {
            Some(identity) => {
                let key = instance.guest.identity(identity, limit(instance)).await?;
                Ok::<_, HypervisorError>((key, Some(instance.since_start_ms())))
            }
            None => Ok((None, None)),
        }
    };
    let old_nic = async {
        if guest == Guest::HasOldNic {
            unplug(instance).await?;
            // A tap is kept for the own card.
            if let Some(nic) = &instance.request.nic
                && !machine::on_tap(&instance.request)
            {
                instance
                    .qmp
                    .execute("netdev_add", machine::netdev(&nic.link))
                    .await?;
            }
        }
        Ok::<_, HypervisorError>(())
    };
    let ((key, identity_ms), ()) = tokio::try_join!(identity, old_nic)?;
    (usable.ssh_host_key, usable.identity_ms) = (key, identity_ms);
    if let Some(nic) = &instance.request.nic {
        instance.set_step("address");
        // The helper waits for the card: asked before it is there, it loses no time.
        let ((), found) = tokio::try_join!(plug(instance, nic), address(instance, nic))?;
        (usable.address, usable.address_ms) = (found.address, found.address_ms);
    }
    Ok(usable)
}

async fn plug(instance: &QemuInstance, nic: &Nic) -> Result<()> {
    match instance
        .qmp
        .execute(
            "device_add",
            machine::nic_device(&nic.mac, machine::on_tap(&instance.request)),
        )
        .await
    {
        Ok(_) => Ok(()),
        // An agent that was restarted in the middle of a start has plugged it before.
        Err(HypervisorError::Refused { message, .. })
            if message.contains("Duplicate device ID") =>
        {
            Ok(())
        }
        Err(e) => Err(e),
    }
}

async fn address(instance: &QemuInstance, nic: &Nic) -> Result<Usable> {
    let address = instance.guest.network(&nic.mac, limit(instance)).await?;
    Ok(Usable {
        address: Some(address),
        address_ms: Some(instance.since_start_ms()),
        ..Usable::default()
    })
}

/// Takes the network card away, and what it was connected to unless that is a tap.
async fn unplug(instance: &QemuInstance) -> Result<()> {
    let mut events = instance.qmp.events();
    instance
        .qmp
        .execute("device_del", json!({ "id": NIC }))
        .await?;
    let gone = events
        .wait_for(
            "the guest to let the old network card go",
            limit(instance),
            |event| match event {
                Event::DeviceDeleted { device: Some(id) } if id == NIC => Some(true),
                Event::DeviceUnplugError { device: Some(id) } if id == NIC => Some(false),
                _ => None,
            },
        )
        .await?;
    if !gone {
        return Err(HypervisorError::Guest(
            "does not let the old network card go".into(),
        ));
    }
    if machine::on_tap(&instance.request) {
        return Ok(());
    }
    instance
        .qmp
        .execute("netdev_del", json!({ "id": NETDEV }))
        .await
        .map(drop)
}

/// One whole picture from the VNC server, and when it was there.
async fn picture(instance: &QemuInstance) -> Result<(rfb::Picture, u64)> {
    let mut stream = instance.vnc().await?;
    let seen = within(
        Duration::from_secs(30),
        "the first picture",
        rfb::picture(&mut stream),
    )
    .await?;
    Ok((seen, instance.since_start_ms()))
}

/// Until the helper says that the desktop is usable.
async fn until_helper_ready(instance: &QemuInstance) -> Result<()> {
    let mut ready = instance.guest.ready();
    instance.set_step("booting: waiting for the guest's helper");
    loop {
        // Before the helper is there the question waits in the port: one is enough.
        let pong = instance.guest.ping(limit(instance)).await?;
        if pong.ready {
            return Ok(());
        }
        instance.set_step(&format!("booting: {}", pong.what));
        let told = tokio::time::timeout(Duration::from_secs(2), ready.wait_for(|r| *r)).await;
        if matches!(told, Ok(Ok(_))) {
            return Ok(());
        }
    }
}

/// Returns when a guest surely runs and surely has no helper: drivers are up, a picture that
/// isn't the firmware's is served, and for the configured patience nobody opened the port.
async fn until_surely_without_helper(instance: &QemuInstance) -> Result<u64> {
    let patience = instance.context.config.helper_patience();
    let mut since: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if since.is_none() && !drivers_are_up(instance).await? {
            continue;
        }
        let since = *since.get_or_insert_with(Instant::now);
        if since.elapsed() < patience {
            continue;
        }
        if port_is_open(instance).await? {
            // There is one, and it says itself when the desktop is usable.
            return std::future::pending().await;
        }
        let (seen, ms) = picture(instance).await?;
        if !seen.blank && (seen.width, seen.height) != TEXT_SCREEN {
            return Ok(ms);
        }
    }
}

/// Whether an operating system drives one of the virtio devices that the firmware doesn't know.
async fn drivers_are_up(instance: &QemuInstance) -> Result<bool> {
    let devices = instance.qmp.execute("x-query-virtio", Value::Null).await?;
    for device in devices.as_array().into_iter().flatten() {
        if device["name"].as_str() == Some("virtio-blk") {
            continue;
        }
        let status = instance
            .qmp
            .execute("x-query-virtio-status", json!({ "path": device["path"] }))
            .await?;
        if status["status"].to_string().contains("DRIVER_OK") {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn port_is_open(instance: &QemuInstance) -> Result<bool> {
    let chardevs = instance.qmp.execute("query-chardev", Value::Null).await?;
    let open = chardevs.as_array().into_iter().flatten().any(|c| {
        c["label"].as_str() == Some("guest") && c["frontend-open"].as_bool() == Some(true)
    });
    Ok(open)
}
