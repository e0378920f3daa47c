//! Finds a machine again after the agent was restarted.

use crate::guest::Guest;
use crate::hypervisor::Context;
use crate::instance::QemuInstance;
use crate::launch::{Launched, RunDir, read_mark};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::util::{io_error, within};
use lyceum_hypervisor::{
    HypervisorError, Instance, InstanceState, StartFrom, StartRequest, TakenBack, Usable,
};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// `None`: there is no process any more.
pub(crate) async fn adopt(
    context: &Arc<Context>,
    run_dir: &Path,
) -> Result<Option<Arc<QemuInstance>>, HypervisorError> {
    let dir = RunDir::new(run_dir);
    let Some(mark) = read_mark(&dir)? else {
        return Ok(None);
    };
    let Some(process) = Process::open(mark)? else {
        return Ok(None);
    };
    if !process.is_alive() {
        return Ok(None);
    }
    let path = dir.request();
    let bytes = std::fs::read(&path).map_err(io_error(path.display().to_string()))?;
    let mut request: StartRequest = serde_json::from_slice(&bytes)
        .map_err(|e| HypervisorError::State(format!("{} is not readable: {e}", path.display())))?;
    // Where it is now counts, should somebody have moved it.
    request.run_dir = run_dir.to_owned();
    let name = format!("guest=lyceum-{}", request.desktop);
    if !process.has_argument(&name) {
        // The agent died between fork and exec; a process in that moment becomes QEMU, or ends, at once.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if !process.is_alive() {
            return Ok(None);
        }
        if !process.has_argument(&name) {
            return Err(HypervisorError::State(format!(
                "process {} in {} is not the QEMU of desktop {}",
                process.mark.pid,
                run_dir.display(),
                request.desktop
            )));
        }
    }
    let connect = async {
        let qmp = Qmp::greet(dir.connect(dir.path(), "qmp.sock").await?).await?;
        let guest = Guest::new(dir.connect(dir.path(), "guest.sock").await?);
        Ok((qmp, guest))
    };
    let (qmp, guest) = within(
        PATIENCE,
        "QEMU's greeting (is another agent connected to the machine?)",
        connect,
    )
    .await?;
    let launched = Launched {
        process,
        qmp,
        guest,
        dir: dir.clone(),
    };
    let instance = QemuInstance::new(Arc::clone(context), request, launched, Instant::now());
    let usable: Option<Usable> = std::fs::read(dir.running())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match usable {
        Some(usable) => take_over(&instance, usable).await?,
        // It arrived and was let go on before that could be written down: it is the desktop.
        None if matches!(instance.request.from, StartFrom::Arrive { .. })
            && runs(&instance).await? =>
        {
            let usable = Usable {
                guest_helper: true,
                ..Usable::default()
            };
            instance.set_running(usable).await?;
        }
        None => carry_on_or_end(&instance).await?,
    }
    Ok(Some(instance))
}

/// It was usable. If the agent ended in the middle of saving it, it stands still: it goes on, and
/// what was saved is not whole and counts for nothing.
async fn take_over(instance: &Arc<QemuInstance>, usable: Usable) -> Result<(), HypervisorError> {
    if runs(instance).await? {
        let _ = std::fs::remove_file(instance.dir.witness());
        instance.set_state(InstanceState::Running { usable });
        return Ok(());
    }
    // In the middle of a move it may be another host's already.
    let why = match instance.take_back().await? {
        TakenBack::GoesOn => {
            instance.set_state(InstanceState::Running { usable });
            return Ok(());
        }
        TakenBack::Elsewhere => ("it goes on on another host", true),
        TakenBack::Outdated => ("it went on on another host and ended there", false),
    };
    instance.note_end(why.0, why.1);
    instance.process.kill().await?;
    instance.wait_ended().await;
    Ok(())
}

async fn runs(instance: &QemuInstance) -> Result<bool, HypervisorError> {
    let status = instance.qmp.execute("query-status", Value::Null).await?;
    Ok(status["running"].as_bool().unwrap_or(false))
}

/// It was not usable yet. A boot from power on is only waited for, so the waiting begins again. A fork
/// may be half made, with or without its identity: it is ended, nobody has seen it.
async fn carry_on_or_end(instance: &Arc<QemuInstance>) -> Result<(), HypervisorError> {
    match instance.request.from {
        StartFrom::Cold | StartFrom::ColdForSeal { .. } => {
            crate::start::spawn(Arc::clone(instance), None);
            Ok(())
        }
        StartFrom::Fork { .. }
        | StartFrom::Resume { .. }
        | StartFrom::HandOut { .. }
        | StartFrom::Arrive { .. } => {
            instance.note_end(
                "the host agent was restarted while the desktop was being started: start it again",
                false,
            );
            instance.process.kill().await?;
            instance.wait_ended().await;
            Ok(())
        }
    }
}
