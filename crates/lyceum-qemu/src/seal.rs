//! Seal: a machine that was booted for it becomes the memory of a release.

use crate::instance::QemuInstance;
use crate::machine::{self, SAVED_STATE};
use crate::qmp::Event;
use crate::util::{blocking, io_error, read_untrusted};
use lyceum_hypervisor::{HypervisorError, SealSummary, StartFrom};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Video memory is in it, and little else.
const MAX_STATE: u64 = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// What a guest still does when it is sealed, every fork of it does again. It is quiet when its
/// machine used less than `QUIET_SHARE` of a processor in each of `QUIET_LOOKS` looks.
const QUIET_LOOK: Duration = Duration::from_millis(500);
const QUIET_LOOKS: u32 = 3;
const QUIET_SHARE: f64 = 0.08;
/// A guest that never is quiet is sealed all the same.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);

/// Asks the guest to make ready, stops it, saves its memory and ends it.
pub(crate) async fn seal(instance: &QemuInstance) -> Result<SealSummary, HypervisorError> {
    let StartFrom::ColdForSeal { ram, device_state } = &instance.request.from else {
        return Err(HypervisorError::State(
            "the machine was not started to be sealed".into(),
        ));
    };
    instance.must_run("seal")?;
    let _busy = instance.saving.try_lock().map_err(|_| {
        HypervisorError::State("can't seal: the machine is being saved already".into())
    })?;
    until_quiet(instance).await?;
    instance.guest.prepare_seal(PATIENCE).await?;
    let saved = save(instance, ram, device_state).await;
    if let Err(e) = saved {
        let _ = std::fs::remove_file(device_state);
        // Not fatal for the draft: the machine goes on, the caller ends it.
        let _ = instance.qmp.execute("cont", Value::Null).await;
        return Err(e);
    }
    instance.note_end("it was sealed", true);
    instance.quit().await?;
    let disk = instance.request.disk.top.clone();
    blocking(move || {
        File::open(&disk)
            .and_then(|f| f.sync_all())
            .map_err(io_error(format!("flushing {}", disk.display())))
    })
    .await?;
    instance.dir.remove()?;
    Ok(SealSummary {
        platform: instance.context.platform.clone(),
        size: instance.request.size,
        guest_helper: true,
    })
}

/// Waits until the guest has ended what it began at its start: services that are still
/// starting, icons that are still being drawn.
async fn until_quiet(instance: &QemuInstance) -> Result<(), HypervisorError> {
    let began = Instant::now();
    let mut looks = 0;
    let mut before = instance.process.usage()?.cpu_ms;
    let mut at = began;
    while looks < QUIET_LOOKS && began.elapsed() < QUIET_PATIENCE {
        tokio::time::sleep(QUIET_LOOK).await;
        let (now, used) = (Instant::now(), instance.process.usage()?.cpu_ms);
        let share = used.saturating_sub(before) as f64 / (now - at).as_millis().max(1) as f64;
        looks = if share <= QUIET_SHARE { looks + 1 } else { 0 };
        (before, at) = (used, now);
    }
    if looks < QUIET_LOOKS {
        tracing::warn!(
            desktop = %instance.request.desktop,
            "the guest is still at work {} s after it was ready; it is sealed as it is",
            QUIET_PATIENCE.as_secs()
        );
    }
    Ok(())
}

async fn save(
    instance: &QemuInstance,
    ram: &Path,
    device_state: &Path,
) -> Result<(), HypervisorError> {
    let qmp = &instance.qmp;
    qmp.execute_within("stop", Value::Null, PATIENCE).await?;
    let capabilities = json!({ "capabilities": [
        { "capability": "x-ignore-shared", "state": true },
        { "capability": "events", "state": true },
    ] });
    qmp.execute("migrate-set-capabilities", capabilities)
        .await?;
    // To a file there is nothing to be gentle with.
    qmp.execute(
        "migrate-set-parameters",
        json!({ "max-bandwidth": 1u64 << 40 }),
    )
    .await?;
    let mut events = qmp.events();
    qmp.execute(
        "migrate",
        json!({ "uri": format!("file:{}", machine::saved_state_uri()) }),
    )
    .await?;
    let done = events
        .wait_for("saving the device state", PATIENCE, |event| match event {
            Event::Migration { status } if status == "completed" => Some(true),
            Event::Migration { status } if status == "failed" => Some(false),
            _ => None,
        })
        .await?;
    if !done {
        let message = crate::util::last_lines(&instance.dir.log());
        return Err(HypervisorError::Refused {
            command: "migrate".into(),
            message,
        });
    }
    let saved = instance.dir.own().join(SAVED_STATE);
    let (ram, out) = (ram.to_owned(), device_state.to_owned());
    let user = instance.context.user;
    blocking(move || {
        let bytes =
            read_untrusted(&saved, MAX_STATE).map_err(io_error(saved.display().to_string()))?;
        let what = || format!("writing {}", out.display());
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&out)
            .map_err(io_error(what()))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(io_error(what()))?;
        let ram_file = File::open(&ram).map_err(io_error(ram.display().to_string()))?;
        if user.is_some() {
            // The release's, and not QEMU's any more.
            std::os::unix::fs::fchown(&ram_file, Some(0), Some(0))
                .map_err(io_error(ram.display().to_string()))?;
        }
        ram_file
            .sync_all()
            .map_err(io_error(format!("flushing {}", ram.display())))
    })
    .await
}
