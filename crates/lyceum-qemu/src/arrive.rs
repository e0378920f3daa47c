//! A machine that another host sends, this side of it.
//!
//! ```text
//! waiting (no lock) ── receive: pages into its memory, device state loaded ── could go on
//!     │ nothing comes in time                                                   │ take_over
//!     ▼                                                                         ▼
//!   ended ◄──────────────────────────────────────── somebody has the lock ── lock, cont ──► Running
//! ```

use crate::instance::{Arrival, QemuInstance};
use crate::machine;
use crate::pages::Memory;
use crate::qmp::Event;
use crate::save::as_migrated;
use crate::start::{load, ram_blocks};
use crate::util::{ChannelReader, blocking, io_error};
use lyceum_delta::stream::{Piece, StreamHeader, StreamReader};
use lyceum_hypervisor::{HypervisorError, Nic, NicLink, StartFrom, Usable};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// How long the helper may take for what is done once the desktop goes on already.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long QEMU may take to load the last of a live migration once everything has come.
const LOAD_PATIENCE: Duration = Duration::from_secs(120);

type Result<T> = std::result::Result<T, HypervisorError>;

/// Ends the machine when nothing has arrived in time.
pub(crate) async fn wait(instance: Arc<QemuInstance>) {
    let limit = Duration::from_millis(instance.request.ready_timeout_ms);
    let mut arrival = instance.arrival.subscribe();
    tokio::select! {
        biased;
        () = instance.ending.cancelled() => return,
        _ = instance.wait_ended() => return,
        _ = arrival.wait_for(|a| *a == Arrival::Taken) => return,
        () = tokio::time::sleep(limit) => {}
    }
    if instance.arrival.send_if_modified(|a| {
        let waiting = *a == Arrival::Waiting;
        if waiting {
            *a = Arrival::GivenUp;
        }
        waiting
    }) {
        instance.note_end(
            format!(
                "the desktop did not arrive within {:.0} s",
                limit.as_secs_f64()
            ),
            false,
        );
        if let Err(e) = instance.process.kill().await {
            tracing::error!(desktop = %instance.request.desktop, error = %e, "a machine that waits in vain could not be ended");
        }
    }
}

fn check(instance: &QemuInstance, header: &StreamHeader) -> Result<()> {
    let refuse = |what: String| Err(HypervisorError::State(what));
    let request = &instance.request;
    let StartFrom::Arrive {
        sealed: Some(sealed),
    } = &request.from
    else {
        return refuse("the machine does not wait for a delta".into());
    };
    if header.release != sealed.release {
        return refuse(format!(
            "the desktop comes from release {}, the machine waits with {}",
            header.release, sealed.release
        ));
    }
    if let Some(difference) = header.platform.difference(&instance.context.platform) {
        return refuse(format!(
            "the desktop comes from another platform: {difference}"
        ));
    }
    let own_mac = request.nic.as_ref().map(|n| &n.mac);
    if header.size != request.size
        || header.vm_generation_id != request.vm_generation_id
        || header.nic_mac.as_ref() != own_mac
    {
        return refuse("what arrives is another desktop than the one that is waited for".into());
    }
    Ok(())
}

pub(crate) async fn receive(instance: &QemuInstance, input: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    match &instance.request.from {
        StartFrom::Arrive { sealed: Some(_) } => delta(instance, input).await,
        StartFrom::Arrive { sealed: None } => live(instance, input).await,
        _ => Err(HypervisorError::State(
            "the machine does not wait for a desktop to arrive".into(),
        )),
    }
}

async fn delta(instance: &QemuInstance, input: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    let (ram, others) = ram_blocks(instance).await?;
    let mut reader = blocking(move || {
        StreamReader::begin(ChannelReader::new(input)).map_err(crate::save::delta_error)
    })
    .await?;
    check(instance, reader.header())?;
    let (pid, state_path) = (instance.process.mark.pid, instance.dir.incoming());
    let machine_type = instance.context.platform.machine_type.clone();
    instance.set_step("arriving");
    blocking(move || {
        // Names and sizes are compared before the first byte is written.
        let mut targets = Vec::new();
        for block in &reader.header().blocks {
            let found = std::iter::once(&ram)
                .chain(&others)
                .find(|b| b.name == block.name && b.bytes == block.bytes);
            match found {
                Some(target) => targets.push(target),
                None => {
                    return Err(HypervisorError::State(format!(
                        "the desktop has a RAM block {:?} of {} bytes, this QEMU's machine has not",
                        block.name, block.bytes
                    )));
                }
            }
        }
        let mut memory = Memory::open(pid, true)?;
        loop {
            match reader.piece().map_err(crate::save::delta_error)? {
                Piece::Pages {
                    block,
                    offset,
                    bytes,
                } => {
                    if let Some(target) = targets.get(block as usize) {
                        memory.write_differing(target, offset, bytes)?;
                    }
                }
                Piece::State(state) => {
                    std::fs::write(&state_path, as_migrated(state.to_vec(), &machine_type))
                        .map_err(io_error(format!("writing {}", state_path.display())))?
                }
                Piece::End => return Ok(()),
            }
        }
    })
    .await?;
    load(instance).await
}

async fn live(instance: &QemuInstance, mut input: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    let qmp = &instance.qmp;
    let mut events = qmp.events();
    let capabilities = json!({ "capabilities": [
        { "capability": "events", "state": true },
        { "capability": "late-block-activate", "state": true },
    ] });
    qmp.execute("migrate-set-capabilities", capabilities)
        .await?;
    qmp.execute(
        "migrate-incoming",
        json!({ "uri": machine::migration_uri() }),
    )
    .await?;
    instance.set_step("arriving");
    let mut stream = instance
        .dir
        .connect(&instance.dir.own(), machine::MIGRATION_SOCKET)
        .await?;
    while let Some(piece) = input.recv().await {
        stream
            .write_all(&piece)
            .await
            .map_err(io_error("giving QEMU what arrives"))?;
    }
    // Whatever is missing QEMU notices itself.
    let _ = stream.shutdown().await;
    let loaded = events
        .wait_for("loading what arrived", LOAD_PATIENCE, |event| match event {
            Event::Migration { status } if status == "completed" => Some(true),
            Event::Migration { status } if status == "failed" => Some(false),
            _ => None,
        })
        .await?;
    match loaded {
        true => Ok(()),
        false => Err(HypervisorError::Refused {
            command: "migrate-incoming".into(),
            message: crate::util::last_lines(&instance.dir.log()),
        }),
    }
}

pub(crate) async fn take_over(instance: &Arc<QemuInstance>, usable: Usable) -> Result<()> {
    let ours = instance.arrival.send_if_modified(|a| {
        let waiting = *a == Arrival::Waiting;
        if waiting {
            *a = Arrival::Taken;
        }
        waiting
    });
    if !ours {
        return Err(HypervisorError::State(
            "the machine does not wait for a desktop any more".into(),
        ));
    }
    if !crate::travel::take_lock(instance).await? {
        return Err(HypervisorError::State(
            "the disk is in another machine's hands: the desktop went on where it was".into(),
        ));
    }
    instance.qmp.execute("cont", Value::Null).await?;
    announce(instance).await;
    // It is the desktop now, whatever fails from here on.
    if let Err(e) = instance.set_running(usable.clone()).await {
        tracing::error!(desktop = %instance.request.desktop, error = %e, "that it arrived could not be kept");
    }
    if usable.guest_helper {
        tokio::spawn(settle(Arc::clone(instance)));
    }
    Ok(())
}

/// Tells the switches of its network that it is here now: they learn from what it says, and it may have
/// nothing to say for a while.
pub(crate) async fn announce(instance: &QemuInstance) {
    let Some(Nic {
        link: NicLink::Tap { .. },
        ..
    }) = &instance.request.nic
    else {
        return;
    };
    let often = json!({ "initial": 20, "max": 500, "rounds": 5, "step": 100 });
    if let Err(e) = instance.qmp.execute("announce-self", often).await {
        tracing::warn!(desktop = %instance.request.desktop, "its move could not be announced: {e}");
    }
}

/// This host's clock may be another one, and its network begins anew.
async fn settle(instance: Arc<QemuInstance>) {
    if let Err(e) = instance.guest.set_time(SETTLE_PATIENCE).await {
        tracing::debug!(desktop = %instance.request.desktop, "after its move: {e}");
    }
    if let Some(nic) = &instance.request.nic
        && let Err(e) = instance.guest.network(&nic.mac, SETTLE_PATIENCE).await
    {
        tracing::debug!(desktop = %instance.request.desktop, "after its move: {e}");
    }
}
