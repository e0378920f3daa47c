//! Making tiers of disks: one volume group, physical volumes tagged by tier, a file system for
//! each tier in it.
//!
//! A *plan* is the list of commands with their reasons; it is shown before anything is done. Every
//! command can be repeated: what is there already is left, so an interrupted set-up goes on.

use super::group::{FAST_TAG, Group, SLOW_TAG, TIER_FAST, TIER_SLOW};
use super::{Ext4Data, Layout, Snapshots, mount, report};
use crate::error::Context;
use crate::survey::Disk;
use crate::{DiskError, tool};
use lyceum_model::Tier;
use std::path::{Path, PathBuf};

/// What the group is called when nobody says otherwise.
pub const GROUP_NAME: &str = "lyceum";

/// What tiers are to be made of.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Name of the volume group.
    pub group: String,
    /// Disks of the fast tier.
    pub fast: Vec<PathBuf>,
    /// Disks of the slow tier.
    pub slow: Vec<PathBuf>,
    /// How the fast ones are put together.
    pub fast_layout: Layout,
    /// How the slow ones are put together.
    pub slow_layout: Layout,
    /// Desktops' disks become snapshots, which need room beside the tiers' file systems.
    pub snapshots: Option<Snapshots>,
    /// Disks that hold data and may be erased all the same, by name.
    pub erase: Vec<PathBuf>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// What it is for.
    pub why: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// What a person should know before saying yes.
    pub warnings: Vec<String>,
}

/// Share of each tier's disks that its file system takes when desktops are snapshots, in
/// percent: releases exist as files and as origins; what desktops write goes to snapshots.
const FAST_SHARE: u64 = 50;
const SLOW_SHARE: u64 = 20;

/// Says what would be done; refuses what would destroy something that was not named.
pub fn plan(wish: &Wish, disks: &[Disk]) -> Result<Plan, DiskError> {
    let mut warnings = Vec::new();
    for (tier, wanted, layout) in [
        ("fast", &wish.fast, wish.fast_layout),
        ("slow", &wish.slow, wish.slow_layout),
    ] {
        if wanted.len() < layout.least().max(1) {
            return Err(DiskError::Invalid(format!(
                "the {tier} tier has {} disks, and its layout needs {} or more: name more disks, or choose another layout",
                wanted.len(),
                layout.least().max(1)
            )));
        }
        if layout == Layout::Striped {
            warnings.push(format!(
                "one broken disk of the {tier} tier loses everything on it (striped); mirror, raid5, raid6 and raid10 survive that"
            ));
        }
        for name in wanted {
            let disk = disks.iter().find(|disk| disk.device == *name).ok_or_else(|| {
                DiskError::NotFound(format!(
                    "{} is no disk of this machine: 'lyceum storage init' without disks lists them",
                    name.display()
                ))
            })?;
            check(disk, tier, &wish.erase, &mut warnings)?;
        }
    }
    if let Some(twice) = wish.fast.iter().find(|disk| wish.slow.contains(disk)) {
        return Err(DiskError::Invalid(format!(
            "{} can't be in both tiers: name it once",
            twice.display()
        )));
    }
    Ok(Plan {
        steps: steps(wish, disks),
        warnings,
    })
}

fn check(
    disk: &Disk,
    tier: &str,
    erase: &[PathBuf],
    warnings: &mut Vec<String>,
) -> Result<(), DiskError> {
    let name = disk.device.display();
    if (tier == "fast") == disk.rotational {
        warnings.push(if disk.rotational {
            format!("{name} turns, and is to be in the fast tier: a class start reads from it")
        } else {
            format!("{name} is an SSD in the slow tier: it wears out by what desktops write")
        });
    }
    if disk.is_empty() {
        return Ok(());
    }
    let holds = disk.holds.join("; ");
    if disk
        .holds
        .iter()
        .any(|why| why.contains("mounted") || why.contains("swap"))
    {
        return Err(DiskError::InUse(format!(
            "{name} is in use and not touched: {holds}"
        )));
    }
    if !erase.contains(&disk.device) {
        return Err(DiskError::InUse(format!(
            "{name} is not empty and not touched: {holds}. If nobody needs that any more, say so by name: --erase {name}"
        )));
    }
    warnings.push(format!("{name} is erased: {holds}"));
    Ok(())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn steps(wish: &Wish, disks: &[Disk]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |why: String, command: Vec<String>| steps.push(Step { why, command });
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let all: Vec<&PathBuf> = wish.fast.iter().chain(&wish.slow).collect();
    for device in &all {
        let held = disks.iter().any(|d| d.device == **device && !d.is_empty());
        if held {
            add(
                format!("forget what is on {}", device.display()),
                words(&["wipefs", "--all", "--force", &text(device)]),
            );
        }
    }
    for device in &all {
        add(
            format!("{} becomes a physical volume of LVM", device.display()),
            words(&["pvcreate", "--yes", &text(device)]),
        );
    }
    let mut create = words(&["vgcreate", &wish.group]);
    create.extend(all.iter().map(|device| text(device)));
    add("all of them in one volume group".into(), create);
    for (list, tag, tier) in [
        (&wish.fast, FAST_TAG, "fast"),
        (&wish.slow, SLOW_TAG, "slow"),
    ] {
        for device in list {
            add(
                format!("{} belongs to the {tier} tier", device.display()),
                words(&["pvchange", "--addtag", tag, &text(device)]),
            );
        }
    }
    steps
}

/// Does what a plan says, and makes the tiers' file systems; the open group.
pub fn apply(wish: &Wish, plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Group, DiskError> {
    for step in &plan.steps {
        let Some((program, arguments)) = step.command.split_first() else {
            continue;
        };
        say(&step.why);
        tool::must(
            &format!("can't do this: {}", step.why),
            program,
            "lvm2",
            arguments,
        )?;
    }
    let uuid = report::groups()?
        .into_iter()
        .find(|group| group.name == wish.group)
        .map(|group| group.uuid)
        .ok_or_else(|| {
            DiskError::Tool(format!(
                "the volume group {} was made and is not listed: look at 'vgs'",
                wish.group
            ))
        })?;
    let group = Group::open(&uuid)?;
    for (tier, layout, share) in [
        (Tier::Fast, wish.fast_layout, FAST_SHARE),
        (Tier::Slow, wish.slow_layout, SLOW_SHARE),
    ] {
        let percent = if wish.snapshots.is_some() { share } else { 100 };
        make_tier(&group, tier, layout, percent, say)?;
    }
    Ok(group)
}

fn volume_of(tier: Tier) -> &'static str {
    match tier {
        Tier::Fast => TIER_FAST,
        Tier::Slow => TIER_SLOW,
    }
}

fn make_tier(
    group: &Group,
    tier: Tier,
    layout: Layout,
    percent: u64,
    say: &mut dyn FnMut(&str),
) -> Result<(), DiskError> {
    let name = volume_of(tier);
    if group.volume(name)?.is_some() {
        return Ok(());
    }
    // RAID keeps a little beside the data.
    let spare = 8 * group.extent;
    let bytes = group.free(tier, layout)?.saturating_sub(spare) / 100 * percent;
    say(&format!(
        "the file system of the tier: {name}, {}",
        crate::inspect::size(bytes)
    ));
    let temp = format!("t.{name}");
    group.remove(&temp)?;
    group.create(&temp, bytes / group.extent * group.extent, tier, layout)?;
    tool::must(
        "can't make the tier's file system",
        "mke2fs",
        "e2fsprogs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            &text(&group.device(&temp)),
        ],
    )?;
    group.rename(&temp, name)
}

/// Mounts the tiers' file systems where they are not mounted yet.
pub fn mount_tiers(
    group: &Group,
    fast: &Path,
    slow: &Path,
    data: Ext4Data,
) -> Result<(), DiskError> {
    for (tier, at) in [(Tier::Fast, fast), (Tier::Slow, slow)] {
        let name = volume_of(tier);
        if group.volume(name)?.is_none() {
            // Its folder is on another file system, which is its owner's to mount.
            continue;
        }
        std::fs::create_dir_all(at).on("can't make the folder", at)?;
        let at = std::fs::canonicalize(at).on("can't find", at)?;
        let device = group.device(name);
        if let Some((_, found)) = mount::mounted()?.iter().find(|(path, _)| *path == at) {
            let same = std::fs::canonicalize(found).ok() == std::fs::canonicalize(&device).ok();
            if same {
                continue;
            }
            return Err(DiskError::Invalid(format!(
                "{} is mounted at {}, where {} belongs: unmount it, or give the tier another folder",
                found,
                at.display(),
                device.display()
            )));
        }
        mount::mount(&device, &at, data, false, false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, rotational: bool, holds: &[&str]) -> Disk {
        Disk {
            device: name.into(),
            bytes: 1 << 40,
            rotational,
            model: String::new(),
            holds: holds.iter().map(|why| (*why).to_owned()).collect(),
        }
    }

    fn wish(fast: &[&str], slow: &[&str]) -> Wish {
        Wish {
            group: GROUP_NAME.into(),
            fast: fast.iter().map(PathBuf::from).collect(),
            slow: slow.iter().map(PathBuf::from).collect(),
            fast_layout: Layout::Linear,
            slow_layout: Layout::Linear,
            snapshots: None,
            erase: Vec::new(),
        }
    }

    #[test]
    fn a_disk_that_holds_data_is_touched_only_by_name_and_one_in_use_never() {
        let disks = [
            disk("/dev/a", false, &[]),
            disk("/dev/b", true, &["it holds ext4"]),
            disk("/dev/c", true, &["/dev/c1 is mounted at /"]),
        ];
        let mut wanted = wish(&["/dev/a"], &["/dev/b"]);
        let refused = plan(&wanted, &disks).unwrap_err().to_string();
        assert!(refused.contains("--erase /dev/b"), "{refused}");
        wanted.erase = vec!["/dev/b".into()];
        let done = plan(&wanted, &disks).unwrap();
        assert!(
            done.warnings.iter().any(|w| w.contains("erased")),
            "{done:?}"
        );
        assert_eq!(done.steps[0].command[0], "wipefs");
        wanted.slow = vec!["/dev/c".into()];
        wanted.erase = vec!["/dev/c".into()];
        assert!(matches!(plan(&wanted, &disks), Err(DiskError::InUse(_))));
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        let disks = [disk("/dev/a", false, &[]), disk("/dev/b", true, &[])];
        for wanted in [
            wish(&["/dev/a"], &["/dev/a"]),
            wish(&[], &["/dev/b"]),
            wish(&["/dev/a"], &["/dev/x"]),
            Wish {
                slow_layout: Layout::Raid5,
                ..wish(&["/dev/a"], &["/dev/b"])
            },
        ] {
            assert!(plan(&wanted, &disks).is_err(), "{wanted:?}");
        }
        let good = plan(&wish(&["/dev/a"], &["/dev/b"]), &disks).unwrap();
        assert!(good.warnings.is_empty(), "{good:?}");
        assert!(!good.steps.iter().any(|step| step.command[0] == "wipefs"));
        let swapped = plan(&wish(&["/dev/b"], &["/dev/a"]), &disks).unwrap();
        assert_eq!(swapped.warnings.len(), 2, "{swapped:?}");
    }
}
