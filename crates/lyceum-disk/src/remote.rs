//! Mounting the file server's tiers on a host, by NFS 4.2.
//!
//! - `hard`: a file server that is restarted makes desktops wait and go on; nothing else keeps
//!   what a guest wrote.
//! - A mount that went stale (`ESTALE`: the tier was made anew) is made anew when the agent starts,
//!   and what is there then must be the tier that is meant.
//! - `nconnect`: several connections, so that one of them is not the limit of a 10G link.
//! - Names that were not there are asked for again every time (`lookupcache=positive`), and what
//!   is known of a file or folder is believed for seconds only: the storage agent makes, replaces
//!   and removes disks. What is *in* a file that stays the same is cached as long as memory
//!   lasts, which is what sixty desktops over one release live on.

use crate::error::Context;
use crate::lvm::mount;
use crate::{DiskError, tool};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where a host finds the tiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// The file server's address on the disk network.
    pub server: IpAddr,
    /// The fast tier there.
    pub fast: PathBuf,
    /// The slow tier there.
    pub slow: PathBuf,
    /// Connections to the server, 1 to 16.
    #[serde(default = "connections")]
    pub connections: u32,
    /// Identity that the fast tier must have; absent: that which it had first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_id: Option<uuid::Uuid>,
    /// Identity that the slow tier must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_id: Option<uuid::Uuid>,
}

fn connections() -> u32 {
    4
}

/// File that the storage agent keeps at the root of a tier.
const MARKER: &str = ".lyceum-tier";

#[derive(Deserialize)]
struct Marker {
    id: uuid::Uuid,
}

impl Remote {
    /// Mounts both tiers where they are not mounted yet, and makes sure that they are the ones
    /// that are meant.
    pub fn mount(&self, fast_at: &Path, slow_at: &Path) -> Result<(), DiskError> {
        if !(1..=16).contains(&self.connections) {
            return Err(DiskError::Invalid(format!(
                "[nfs] connections is {}: the kernel takes 1 to 16",
                self.connections
            )));
        }
        for (name, path, at, id) in [
            ("fast", &self.fast, fast_at, self.fast_id),
            ("slow", &self.slow, slow_at, self.slow_id),
        ] {
            self.mount_one(path, at)?;
            if is_stale(at) {
                tracing::warn!(at = %at.display(), "the mount is stale; it is made anew");
                mount::unmount(at).map_err(|error| match error {
                    DiskError::InUse(_) => DiskError::InUse(format!(
                        "{0} is stale: the file server does not know any more what is mounted there, because its {name} tier was made anew or is not shown any more, and something on this host still uses it. Stop this host's desktops, run 'umount {0}', and start the host agent again",
                        at.display()
                    )),
                    other => other,
                })?;
                self.mount_one(path, at)?;
            }
            check(name, at, id)?;
        }
        Ok(())
    }

    fn mount_one(&self, path: &Path, at: &Path) -> Result<(), DiskError> {
        let source = match self.server {
            IpAddr::V4(address) => format!("{address}:{}", path.display()),
            IpAddr::V6(address) => format!("[{address}]:{}", path.display()),
        };
        // Asked of the kernel's list only: looking at a mount whose server is silent hangs.
        if let Some((_, found)) = mount::mounted()?
            .into_iter()
            .rfind(|(mounted, _)| mounted == at)
        {
            if found == source {
                return Ok(());
            }
            return Err(DiskError::Invalid(format!(
                "{} is a mount of {found}, and {source} is to be there: unmount it, or give the tier another folder",
                at.display()
            )));
        }
        std::fs::create_dir_all(at).on("can't make the folder", at)?;
        let options = format!(
            "vers=4.2,proto=tcp,hard,nconnect={},retry=1,lookupcache=positive,acregmin=1,acregmax=10,acdirmin=1,acdirmax=10,noatime,nodev,nosuid,noexec,sec=sys",
            self.connections
        );
        let target = at.to_string_lossy().into_owned();
        tool::must(
            &format!("can't mount {source} at {}", at.display()),
            "mount",
            "nfs-common",
            &["-t", "nfs4", "-o", &options, &source, &target],
        )
        .map(drop)
        .map_err(|error| {
            DiskError::Tool(format!(
                "{error}. Look whether the storage agent runs there, whether this host's address on the disk network is among its [nfs] clients, and whether both are on one network"
            ))
        })
    }
}

/// Whether the server no longer knows what is mounted here: nothing brings such a mount back.
fn is_stale(at: &Path) -> bool {
    let looked = std::fs::metadata(at.join(MARKER));
    looked.is_err_and(|e| e.raw_os_error() == Some(nix::errno::Errno::ESTALE as i32))
}

/// Refuses a tier that is another one, or none.
fn check(name: &str, at: &Path, expected: Option<uuid::Uuid>) -> Result<(), DiskError> {
    let path = at.join(MARKER);
    let bytes = std::fs::read(&path).map_err(|e| {
        DiskError::Invalid(format!(
            "{} is not the {name} tier: {} can't be read ({e}). Give [nfs] the folder that the storage agent has as its {name} tier",
            at.display(),
            path.display()
        ))
    })?;
    let marker: Marker = serde_json::from_slice(&bytes).map_err(|e| {
        DiskError::Damaged(format!(
            "{} is damaged ({e}): restart the storage agent and see what it says",
            path.display()
        ))
    })?;
    match expected {
        Some(id) if id != marker.id => Err(DiskError::Invalid(format!(
            "{} is another {name} tier ({}) than this host is to use ({id}): mount the right one, or change {name}_id in [nfs]",
            at.display(),
            marker.id
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_the_tier_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let id = uuid::Uuid::from_u128(5);
        let said = check("fast", folder.path(), None).unwrap_err().to_string();
        assert!(said.contains("not the fast tier"), "{said}");
        std::fs::write(folder.path().join(MARKER), "{").unwrap();
        assert!(matches!(
            check("fast", folder.path(), None),
            Err(DiskError::Damaged(_))
        ));
        let text = format!("{{\"id\":\"{id}\",\"kind\":\"fast\"}}");
        std::fs::write(folder.path().join(MARKER), text).unwrap();
        check("fast", folder.path(), None).unwrap();
        check("fast", folder.path(), Some(id)).unwrap();
        let said = check("fast", folder.path(), Some(uuid::Uuid::from_u128(6)));
        assert!(said.unwrap_err().to_string().contains("another fast tier"));
    }
}
