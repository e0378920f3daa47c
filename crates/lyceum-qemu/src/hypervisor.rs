//! [`QemuHypervisor`]: the engine as the agent sees it.

use crate::config::{AcceleratorChoice, QemuConfig};
use crate::instance::QemuInstance;
use crate::launch::{Unprivileged, launch};
use crate::machine::SavedNic;
use crate::probe;
use crate::util::blocking;
use async_trait::async_trait;
use lyceum_delta::{Delta, DeltaError, Expect};
use lyceum_hypervisor::{
    DeltaFault, Hypervisor, HypervisorError, Instance, SealedFiles, StartError, StartFrom,
    StartRequest,
};
use lyceum_model::{Accelerator, Platform};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What all machines of a host have in common.
#[derive(Debug)]
pub(crate) struct Context {
    pub config: QemuConfig,
    pub platform: Platform,
    pub user: Option<Unprivileged>,
    /// Whether QEMU's module for SPICE is there.
    pub spice: bool,
}

/// Machines by real QEMU.
#[derive(Debug, Clone)]
pub struct QemuHypervisor {
    context: Arc<Context>,
}

impl QemuHypervisor {
    /// Finds out QEMU's version and which accelerator works. Blocks: with
    /// [`AcceleratorChoice::Auto`] on a host with `/dev/kvm` it runs a trivial guest some times, each
    /// for at most [`probe::KVM_PATIENCE`].
    pub fn new(config: QemuConfig) -> Result<QemuHypervisor, HypervisorError> {
        let version = probe::version(&config.binary)?;
        if version.major < 10 {
            return Err(HypervisorError::State(format!(
                "QEMU {version} is too old, 10.0 is the oldest that works: on Debian 12 install it from bookworm-backports"
            )));
        }
        let accelerator = match config.accelerator {
            AcceleratorChoice::Kvm => Accelerator::Kvm,
            AcceleratorChoice::Tcg => Accelerator::Tcg,
            AcceleratorChoice::Auto => match probe::kvm(&config.binary, &config.cpu_model) {
                probe::Kvm::Works => Accelerator::Kvm,
                probe::Kvm::Broken(why) | probe::Kvm::Absent(why) => {
                    tracing::warn!(%why, "KVM does not work here: guests run in software emulation, many times slower");
                    Accelerator::Tcg
                }
            },
        };
        let user = match &config.user {
            Some(name) if nix::unistd::geteuid().is_root() => Some(find_user(name)?),
            _ => None,
        };
        let platform = Platform {
            qemu_version: version.to_string(),
            machine_type: config.machine_type.clone(),
            cpu_model: config.cpu_model.clone(),
            accelerator,
        };
        let spice = probe::has_spice(&config.binary)?;
        Ok(QemuHypervisor {
            context: Arc::new(Context {
                spice,
                config,
                platform,
                user,
            }),
        })
    }

    /// Reads and verifies what the start needs besides the release.
    async fn prepare(
        &self,
        request: &StartRequest,
    ) -> Result<(Option<PathBuf>, Option<Delta>), StartError> {
        match &request.from {
            StartFrom::Cold
            | StartFrom::ColdForSeal { .. }
            | StartFrom::Arrive { sealed: None } => Ok((None, None)),
            StartFrom::Arrive {
                sealed: Some(sealed),
            } => {
                check_sealed(sealed)?;
                Ok((None, None))
            }
            StartFrom::Fork { sealed } => {
                check_sealed(sealed)?;
                Ok((Some(sealed.device_state.clone()), None))
            }
            StartFrom::Resume { sealed, delta } | StartFrom::HandOut { sealed, delta } => {
                check_sealed(sealed)?;
                let delta = self.open_delta(request, sealed, delta).await?;
                Ok((Some(delta.device_state()), Some(delta)))
            }
        }
    }

    async fn open_delta(
        &self,
        request: &StartRequest,
        sealed: &SealedFiles,
        path: &Path,
    ) -> Result<Delta, StartError> {
        let (release, platform) = (sealed.release.clone(), self.context.platform.clone());
        let (path, size) = (path.to_owned(), request.size);
        let opened = blocking(move || {
            Ok(Delta::open(
                &path,
                Expect {
                    release: &release,
                    platform: &platform,
                    size,
                },
            ))
        })
        .await?;
        let delta = opened.map_err(|e| match e {
            DeltaError::Io { path, source } if source.kind() != std::io::ErrorKind::NotFound => {
                StartError::Other(HypervisorError::Io {
                    what: path.display().to_string(),
                    source,
                })
            }
            e => StartError::BadDelta(e.to_string()),
        })?;
        if !delta.header().holds_memory() {
            return Err(StartError::BadDelta(
                "it holds a disk alone, to be booted from".into(),
            ));
        }
        if let Some(mac) = &delta.header().nic_mac {
            if !is_mac(mac) {
                return Err(StartError::BadDelta(format!("{mac:?} is no MAC address")));
            }
            let own = request.nic.as_ref().map(|n| n.mac.as_str());
            if matches!(request.from, StartFrom::Resume { .. }) && own.is_some_and(|own| own != mac)
            {
                return Err(StartError::BadDelta(format!(
                    "its network card is {mac}, the desktop's is {}",
                    own.unwrap_or("none")
                )));
            }
        }
        Ok(delta)
    }
}

/// `52:54:00:xx:xx:xx`-like: six pairs of lower-case hex digits.
pub(crate) fn is_mac(text: &str) -> bool {
    text.len() == 17
        && text.split(':').count() == 6
        && text
            .split(':')
            .all(|p| p.len() == 2 && p.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn check_sealed(sealed: &SealedFiles) -> Result<(), StartError> {
    for path in [&sealed.ram, &sealed.device_state] {
        if !path.is_file() {
            return Err(StartError::NotForkable(format!(
                "{} is not there",
                path.display()
            )));
        }
    }
    Ok(())
}

fn find_user(name: &str) -> Result<Unprivileged, HypervisorError> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(Unprivileged {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }),
        Ok(None) => Err(HypervisorError::State(format!(
            "there is no user {name:?} for QEMU: make it (useradd --system {name}) or name another one"
        ))),
        Err(e) => Err(HypervisorError::State(format!(
            "looking up the user {name:?}: {e}"
        ))),
    }
}

fn check_request(request: &StartRequest) -> Result<(), HypervisorError> {
    let refuse = |what: String| Err(HypervisorError::State(what));
    if let Err(e) = request.size.check() {
        return refuse(e.to_string());
    }
    if !request.run_dir.is_absolute() {
        return refuse(format!(
            "the run directory {} is not an absolute path",
            request.run_dir.display()
        ));
    }
    if let Some(nic) = &request.nic
        && !is_mac(&nic.mac)
    {
        return refuse(format!("{:?} is no MAC address", nic.mac));
    }
    if let Some(identity) = &request.identity {
        let id = &identity.machine_id;
        if id.len() != 32 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return refuse(format!("{id:?} is no machine id: 32 lower-case hex digits"));
        }
    }
    let renews = matches!(request.from, StartFrom::HandOut { .. });
    if renews && request.identity.is_none() {
        return refuse(
            "a hand-out without a new identity would give away somebody's desktop".into(),
        );
    }
    if matches!(request.from, StartFrom::ColdForSeal { .. }) && request.nic.is_some() {
        return refuse("a machine that is to be sealed has no network card".into());
    }
    Ok(())
}

#[async_trait]
impl Hypervisor for QemuHypervisor {
    fn platform(&self) -> Platform {
        self.context.platform.clone()
    }

    fn has_spice(&self) -> bool {
        self.context.spice
    }

    async fn start(&self, mut request: StartRequest) -> Result<Arc<dyn Instance>, StartError> {
        check_request(&request)?;
        request.spice &= self.context.spice;
        let began = Instant::now();
        let (device_state, delta) = self.prepare(&request).await?;
        let saved_nic = delta
            .as_ref()
            .and_then(|d| d.header().nic_mac.clone())
            .or_else(|| match &request.from {
                // A desktop that runs has its card, and brings it along.
                StartFrom::Arrive { .. } => request.nic.as_ref().map(|n| n.mac.clone()),
                _ => None,
            })
            .map(|mac| SavedNic { mac });
        let launched = launch(
            &self.context.config.binary,
            &self.context.platform,
            self.context.user,
            &request,
            saved_nic.as_ref(),
            device_state.as_deref(),
        )
        .await?;
        let instance = QemuInstance::new(Arc::clone(&self.context), request, launched, began);
        crate::start::spawn(Arc::clone(&instance), delta);
        Ok(instance)
    }

    async fn verify_delta(
        &self,
        delta: &Path,
        sealed: &SealedFiles,
        size: lyceum_model::MachineSize,
    ) -> Result<(), DeltaFault> {
        let (release, platform) = (sealed.release.clone(), self.context.platform.clone());
        let path = delta.to_owned();
        let opened = blocking(move || {
            let expect = Expect {
                release: &release,
                platform: &platform,
                size,
            };
            Ok(Delta::open(&path, expect).map(drop))
        })
        .await?;
        opened.map_err(|e| match e {
            DeltaError::Io { path, source } if source.kind() != std::io::ErrorKind::NotFound => {
                DeltaFault::Other(HypervisorError::Io {
                    what: path.display().to_string(),
                    source,
                })
            }
            DeltaError::OtherRelease { .. }
            | DeltaError::OtherPlatform(_)
            | DeltaError::OtherSize { .. }
            | DeltaError::Format { .. } => DeltaFault::Unfit(e.to_string()),
            e => DeltaFault::Damaged(e.to_string()),
        })
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Instance>>, HypervisorError> {
        let adopted = crate::adopt::adopt(&self.context, run_dir).await?;
        Ok(adopted.map(|i| i as Arc<dyn Instance>))
    }
}
