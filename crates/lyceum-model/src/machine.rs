//! The virtual machine as seen by the planner and by the page.

use serde::{Deserialize, Serialize};

/// How many vCPUs and how much memory.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSize {
    /// Virtual CPUs, 1 to 16.
    pub vcpus: u16,
    /// Nominal memory in MiB, 64 to 65,536.
    pub memory_mib: u32,
}

/// A size that no desktop can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// vCPUs out of range.
    #[error("a desktop has 1 to 16 vCPUs, not {0}")]
    Vcpus(u16),
    /// Memory out of range.
    #[error("a desktop has 64 to 65536 MiB of memory, not {0}")]
    Memory(u32),
}

impl MachineSize {
    /// Checks the ranges.
    pub fn check(self) -> Result<Self, SizeError> {
        if !(1..=16).contains(&self.vcpus) {
            return Err(SizeError::Vcpus(self.vcpus));
        }
        if !(64..=65_536).contains(&self.memory_mib) {
            return Err(SizeError::Memory(self.memory_mib));
        }
        Ok(self)
    }
}

/// What executes guest instructions.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// Hardware virtualisation that was seen to work.
    Kvm,
    /// QEMU's software emulation.
    Tcg,
    /// No machine at all: the simulated hypervisor of tests and the simulator.
    Simulated,
}

/// All that both ends of a fork, resume or move must have in common besides the
/// release's bytes. Compared whole: any difference means a cold boot.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// QEMU's version, for example `10.0.2`.
    pub qemu_version: String,
    /// Versioned machine type, for example `pc-i440fx-10.0`.
    pub machine_type: String,
    /// CPU model with its feature flags.
    pub cpu_model: String,
    /// Accelerator.
    pub accelerator: Accelerator,
}

impl Platform {
    /// What differs between the two, as a text for a person; `None` when nothing does.
    pub fn difference(&self, other: &Platform) -> Option<String> {
        let mut out = Vec::new();
        let mut check = |what: &str, a: &str, b: &str| {
            if a != b {
                out.push(format!("{what} is {b} here, {a} there"));
            }
        };
        check("QEMU", &self.qemu_version, &other.qemu_version);
        check("the machine type", &self.machine_type, &other.machine_type);
        check("the CPU model", &self.cpu_model, &other.cpu_model);
        check(
            "the accelerator",
            &format!("{:?}", self.accelerator).to_lowercase(),
            &format!("{:?}", other.accelerator).to_lowercase(),
        );
        (!out.is_empty()).then(|| out.join(", "))
    }
}
