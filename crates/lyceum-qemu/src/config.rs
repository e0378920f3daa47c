//! What an administrator can choose.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Which accelerator to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratorChoice {
    /// KVM when a trivial guest runs to completion with it, software emulation otherwise.
    #[default]
    Auto,
    /// KVM, as somebody found out before.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// How machines are made on this host. All hosts that share releases need the
/// same `machine_type` and `cpu_model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QemuConfig {
    /// QEMU's program, looked up in `PATH` when it is a bare name.
    pub binary: PathBuf,
    /// Accelerator.
    pub accelerator: AcceleratorChoice,
    /// Versioned machine type.
    pub machine_type: String,
    /// CPU model with feature flags: the common baseline of all hosts.
    pub cpu_model: String,
    /// System user that QEMU runs as when the agent is root. `None`, or an agent
    /// that is not root: QEMU runs as the agent's own user.
    pub user: Option<String>,
    /// A cold-booted guest whose drivers are up and that shows a picture, but whose
    /// helper has not been heard for so long, is taken for one without a helper. Seconds.
    pub helper_patience_s: u64,
}

impl Default for QemuConfig {
    fn default() -> Self {
        QemuConfig {
            binary: PathBuf::from("qemu-system-x86_64"),
            accelerator: AcceleratorChoice::Auto,
            machine_type: "pc-i440fx-10.0".into(),
            cpu_model: "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt".into(),
            user: None,
            helper_patience_s: 60,
        }
    }
}

impl QemuConfig {
    pub(crate) fn helper_patience(&self) -> Duration {
        Duration::from_secs(self.helper_patience_s)
    }
}
