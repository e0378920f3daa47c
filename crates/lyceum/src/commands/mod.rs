//! One file per resource of the API, of the same name.

pub mod allocation;
pub mod audit;
pub mod course;
pub mod desktop;
pub mod host;
pub mod image;
pub mod import;
pub mod login;
pub mod network;
pub mod operation;
pub mod plan;
pub mod restore_point;
pub mod roster;
pub mod samples;
pub mod session;
pub mod settings;
pub mod sim;
pub mod status;
pub mod storage;
pub mod timetable;
pub mod user;

use crate::exit::Exit;
use lyceum_model::MachineSize;

/// Size of a machine as options.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct SizeArgs {
    /// Virtual CPUs
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u16>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
}

impl SizeArgs {
    /// The size; what is not given is taken from `present`.
    pub fn over(self, present: Option<MachineSize>) -> anyhow::Result<Option<MachineSize>> {
        if self.vcpus.is_none() && self.memory.is_none() {
            return Ok(None);
        }
        let size = match (
            self.vcpus.or(present.map(|p| p.vcpus)),
            self.memory.or(present.map(|p| p.memory_mib)),
        ) {
            (Some(vcpus), Some(memory_mib)) => MachineSize { vcpus, memory_mib },
            _ => return Err(Exit::usage("--vcpus and --memory are given together here")),
        };
        size.check()
            .map(Some)
            .map_err(|e| Exit::usage(e.to_string()))
    }
}

/// Vcpus and memory in one cell.
pub fn size_text(size: MachineSize) -> String {
    format!(
        "{} x {}",
        size.vcpus,
        crate::format::mib(u64::from(size.memory_mib))
    )
}
