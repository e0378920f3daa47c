//! What disks a machine has, and which of them nobody uses.
//!
//! A disk counts as empty only when nothing at all speaks against it: no partitions, no signature
//! of a file system, RAID, LVM or partition table, not mounted, not held by another device, not
//! open elsewhere, and nothing but zeros where such things begin. Anything else *holds data*,
//! and is touched only by a person who names it.

use crate::error::Context;
use crate::{DiskError, tool};
use serde::{Deserialize, Deserializer};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Disk {
    /// Its device at this moment.
    pub device: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// It turns.
    pub rotational: bool,
    /// Model and serial number, as far as they are known.
    pub model: String,
    /// Why it is not to be touched; empty: it is empty.
    pub holds: Vec<String>,
}

impl Disk {
    /// Nothing speaks against using it.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }
}

#[derive(Deserialize)]
struct Answer {
    blockdevices: Vec<Block>,
}

#[derive(Debug, Clone, Deserialize)]
struct Block {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "number")]
    size: u64,
    #[serde(deserialize_with = "truth")]
    rota: bool,
    #[serde(deserialize_with = "truth")]
    ro: bool,
    #[serde(default, deserialize_with = "truth")]
    rm: bool,
    fstype: Option<String>,
    pttype: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Block>,
}

/// Older versions of lsblk write numbers and truth as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Truth(bool),
    Number(u64),
    Text(String),
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Loose::deserialize(deserializer)? {
        Loose::Number(n) => Ok(n),
        Loose::Truth(b) => Ok(u64::from(b)),
        Loose::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    number(deserializer).map(|n| n != 0)
}

const COLUMNS: &str = "PATH,TYPE,SIZE,ROTA,RO,RM,FSTYPE,PTTYPE,MODEL,SERIAL,MOUNTPOINTS";

/// All disks of this machine, the largest first of each kind.
pub fn disks() -> Result<Vec<Disk>, DiskError> {
    let text = tool::must(
        "can't list the disks",
        "lsblk",
        "util-linux",
        &["--json", "--bytes", "--output", COLUMNS],
    )?;
    let mut disks = parse(&text)?;
    for disk in &mut disks {
        if disk.is_empty() {
            look(disk);
        }
    }
    disks.sort_by(|a, b| {
        (a.rotational, b.bytes, &a.device).cmp(&(b.rotational, a.bytes, &b.device))
    });
    Ok(disks)
}

fn parse(text: &str) -> Result<Vec<Disk>, DiskError> {
    let answer: Answer = serde_json::from_str(text).map_err(|e| {
        DiskError::Tool(format!(
            "lsblk says something unexpected ({e}): this version is not known to work; Debian 12 and 13 have one that does"
        ))
    })?;
    Ok(answer
        .blockdevices
        .into_iter()
        // No memory disks, no CD drives, no sticks that somebody left in.
        .filter(|block| block.kind == "disk" && block.size > 0 && !block.rm)
        .map(disk)
        .collect())
}

fn disk(block: Block) -> Disk {
    let mut holds = Vec::new();
    if block.ro {
        holds.push("it is read-only".to_owned());
    }
    mounts(&block, &mut holds);
    if let Some(kind) = &block.fstype {
        holds.push(format!("it holds {kind}"));
    }
    if let Some(kind) = &block.pttype {
        holds.push(format!("it has a partition table ({kind})"));
    }
    if !block.children.is_empty() {
        let names: Vec<String> = block
            .children
            .iter()
            .map(|child| child.path.display().to_string())
            .collect();
        holds.push(format!("it is used by {}", names.join(", ")));
    }
    Disk {
        bytes: block.size,
        rotational: block.rota,
        model: [block.model, block.serial]
            .into_iter()
            .flatten()
            .map(|text| text.trim().to_owned())
            .collect::<Vec<_>>()
            .join(" "),
        device: block.path,
        holds,
    }
}

fn mounts(block: &Block, holds: &mut Vec<String>) {
    for at in block.mountpoints.iter().flatten() {
        let how = if at == "[SWAP]" {
            format!("{} is swap", block.path.display())
        } else {
            format!("{} is mounted at {at}", block.path.display())
        };
        holds.push(how);
    }
    for child in &block.children {
        mounts(child, holds);
    }
}

/// How much is read at either end: there every signature lies.
const ENDS: u64 = 2 << 20;

/// Looks at the disk itself.
fn look(disk: &mut Disk) {
    let text = tool::must(
        "can't look for signatures",
        "wipefs",
        "util-linux",
        &["--no-act", "--parsable", &disk.device.to_string_lossy()],
    );
    match text {
        Ok(text) => {
            let found: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .filter_map(|line| line.rsplit(',').next())
                .collect();
            if !found.is_empty() {
                disk.holds.push(format!("it holds {}", found.join(", ")));
            }
        }
        Err(error) => disk.holds.push(error.to_string()),
    }
    match zeros(&disk.device, disk.bytes) {
        Ok(true) => {}
        Ok(false) => disk
            .holds
            .push("it holds data of a kind that is not known".into()),
        Err(error) => disk.holds.push(error.to_string()),
    }
}

/// Whether both ends of a disk are zeros; an error too when somebody else has it open for
/// himself.
fn zeros(device: &Path, bytes: u64) -> Result<bool, DiskError> {
    use std::io::{Seek, SeekFrom};
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_EXCL)
        .open(device)
        .on("can't open for this program alone", device)?;
    let mut buffer = vec![0; 64 << 10];
    for start in [0, bytes.saturating_sub(ENDS)] {
        file.seek(SeekFrom::Start(start)).on("can't read", device)?;
        let mut left = ENDS.min(bytes);
        while left > 0 {
            let want = usize::try_from(left)
                .unwrap_or(buffer.len())
                .min(buffer.len());
            let n = file.read(&mut buffer[..want]).on("can't read", device)?;
            if n == 0 {
                break;
            }
            if buffer[..n].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            left -= n as u64;
        }
    }
    Ok(true)
}

/// The disks that a tier could be made of, when nobody says which.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Proposal {
    /// For the fast tier.
    pub fast: Vec<PathBuf>,
    /// For the slow tier.
    pub slow: Vec<PathBuf>,
}

/// Empty disks that do not turn become the fast tier, those that do the slow one.
pub fn propose(disks: &[Disk]) -> Proposal {
    let of = |rotational: bool| {
        disks
            .iter()
            .filter(|disk| disk.is_empty() && disk.rotational == rotational)
            .map(|disk| disk.device.clone())
            .collect()
    };
    Proposal {
        fast: of(false),
        slow: of(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &str = r#"{"blockdevices":[
      {"path":"/dev/sda","type":"disk","size":500107862016,"rota":false,"ro":false,"rm":false,"fstype":null,
       "pttype":"gpt","model":"Fast SSD ","serial":"S1","mountpoints":[null],"children":[
         {"path":"/dev/sda1","type":"part","size":1000,"rota":false,"ro":false,"rm":false,"fstype":"ext4",
          "pttype":"gpt","model":null,"serial":null,"mountpoints":["/"]}]},
      {"path":"/dev/sdb","type":"disk","size":"4000787030016","rota":"1","ro":"0","rm":"0","fstype":null,
       "pttype":null,"model":"Big HDD","serial":null,"mountpoints":[null]},
      {"path":"/dev/sdc","type":"disk","size":64000,"rota":true,"ro":false,"rm":true,"fstype":null,
       "pttype":null,"model":"Stick","serial":null,"mountpoints":[]},
      {"path":"/dev/sr0","type":"rom","size":1073741312,"rota":true,"ro":false,"rm":true,"fstype":null,
       "pttype":null,"model":null,"serial":null,"mountpoints":[]}]}"#;

    #[test]
    fn a_disk_in_use_is_known_and_an_empty_one_proposed() {
        let disks = parse(TWO).unwrap();
        assert_eq!(disks.len(), 2, "{disks:?}");
        let holds = disks[0].holds.join("; ");
        for words in ["mounted at /", "partition table", "/dev/sda1"] {
            assert!(holds.contains(words), "{holds}");
        }
        assert!(disks[1].is_empty() && disks[1].rotational);
        let proposal = propose(&disks);
        assert!(proposal.fast.is_empty());
        assert_eq!(proposal.slow, [PathBuf::from("/dev/sdb")]);
    }

    #[test]
    fn what_is_written_at_either_end_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        for (at, empty) in [
            (None, true),
            (Some(100), false),
            (Some((8 << 20) - 1), false),
        ] {
            let mut bytes = vec![0u8; 8 << 20];
            if let Some(at) = at {
                bytes[at] = 1;
            }
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(zeros(&path, 8 << 20).unwrap(), empty, "{at:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in ".{0,300}") {
            let _ = parse(&text);
        }
    }
}
