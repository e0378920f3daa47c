//! What unit tests share.

use lyceum_model::disk::layout;
use lyceum_model::release::FileEntry;
use lyceum_model::{Accelerator, MachineSize, Platform, ReleaseId, ReleaseManifest, SealedMemory};
use std::path::{Path, PathBuf};

/// A complete release in a folder below `dir`.
pub(crate) fn write_release(dir: &Path) -> (ReleaseId, PathBuf) {
    let folder = dir.join("release");
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(folder.join(name), content).unwrap();
        FileEntry {
            bytes: content.len() as u64,
            blake3: blake3::hash(content.as_bytes()).to_hex().to_string(),
        }
    };
    let manifest = ReleaseManifest {
        format: ReleaseManifest::FORMAT,
        sealed_at: 1,
        disk: file(layout::RELEASE_DISK, "a disk"),
        virtual_bytes: 4096,
        memory: Some(SealedMemory {
            size: MachineSize {
                vcpus: 1,
                memory_mib: 128,
            },
            platform: Platform {
                qemu_version: "0.0.0".into(),
                machine_type: "simulated-1".into(),
                cpu_model: "simulated".into(),
                accelerator: Accelerator::Simulated,
            },
            ram: file(layout::RELEASE_RAM, "some memory"),
            device_state: file(layout::RELEASE_DEVICE_STATE, "some devices"),
            guest_helper: true,
        }),
        cold_reason: None,
    };
    let json = manifest.canonical_json().unwrap();
    std::fs::write(folder.join(layout::RELEASE_MANIFEST), &json).unwrap();
    let id = blake3::hash(&json).to_hex().to_string().parse().unwrap();
    (id, folder)
}
