//! The qcow2 driver on real files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::qemu_img;
use lyceum_disk::qemu_img::QemuImg;
use lyceum_disk::{Cancel, DiskDriver, DiskError, Qcow2Driver, TierDirs, files, lock};
use lyceum_model::{DeltaId, DiskRef, DraftId, OverlayId, PointId, ReleaseId};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

struct Tiers {
    _folder: TempDir,
    dirs: TierDirs,
    driver: Qcow2Driver,
    release: ReleaseId,
}

impl Tiers {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dirs = TierDirs {
            fast: folder.path().join("fast"),
            slow: folder.path().join("slow"),
        };
        for part in [
            "fast/releases",
            "fast/drafts",
            "slow/overlays",
            "slow/deltas",
            "slow/points",
        ] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        let driver = Qcow2Driver::new(dirs.clone(), QemuImg::new("qemu-img"), None);
        let release: ReleaseId = "r-1".parse().unwrap();
        let tiers = Tiers {
            _folder: folder,
            dirs,
            driver,
            release,
        };
        tiers.make_release("r-1");
        tiers
    }

    fn make_release(&self, id: &str) {
        let folder = self.dirs.release(&id.parse().unwrap());
        fs::create_dir_all(&folder).unwrap();
        let disk = folder.join("disk.qcow2");
        qemu_img(&["create", "-q", "-f", "qcow2", disk.to_str().unwrap(), "4G"]);
        io(&disk, "write -P 0x41 0 1M");
    }
}

/// Runs a qemu-io command and answers whether it succeeded.
fn try_io(disk: &std::path::Path, command: &str) -> bool {
    let output = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", command, disk.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && !text.contains("Pattern verification failed")
}

fn io(disk: &std::path::Path, command: &str) {
    assert!(try_io(disk, command), "{command} on {}", disk.display());
}

#[test]
fn a_clone_reads_through_and_keeps_its_own_writes() {
    let tiers = Tiers::new();
    let (one, two) = (OverlayId::new(), OverlayId::new());
    let disk = tiers.driver.clone_release(&tiers.release, &one).unwrap();
    tiers.driver.clone_release(&tiers.release, &two).unwrap();
    let path = tiers.dirs.overlay(&one);
    io(&path, "read -P 0x41 0 1M");
    io(&path, "write -P 0x42 4k 4k");
    io(&path, "read -P 0x42 4k 4k");
    io(&tiers.dirs.overlay(&two), "read -P 0x41 0 1M");
    // A first write of 4 KiB costs about that, not a cluster copied from the release.
    let usage = tiers.driver.usage(&disk).unwrap();
    assert_eq!(usage.virtual_bytes, 4 << 30);
    assert!(usage.bytes_on_disk < 700 << 10, "{usage:?}");
    qemu_img(&["check", "-f", "qcow2", path.to_str().unwrap()]);
    // Again: the same answer, nothing lost. Over another release: refused.
    assert_eq!(
        tiers.driver.clone_release(&tiers.release, &one).unwrap(),
        disk
    );
    io(&path, "read -P 0x42 4k 4k");
    tiers.make_release("r-2");
    let other = "r-2".parse().unwrap();
    assert!(matches!(
        tiers.driver.clone_release(&other, &one),
        Err(DiskError::Invalid(_))
    ));

    tiers.driver.reset(&disk).unwrap();
    io(&path, "read -P 0x41 0 1M");
    assert!(tiers.driver.delete(&disk).unwrap());
    assert!(!tiers.driver.delete(&disk).unwrap());
    assert!(matches!(
        tiers.driver.usage(&disk),
        Err(DiskError::NotFound(_))
    ));
}

#[test]
fn a_missing_release_is_said() {
    let tiers = Tiers::new();
    let gone = "r-9".parse().unwrap();
    let refused = tiers.driver.clone_release(&gone, &OverlayId::new());
    assert!(
        matches!(refused, Err(DiskError::NotFound(_))),
        "{refused:?}"
    );
    // Also when an overlay of it was made before.
    tiers
        .driver
        .clone_release(&tiers.release, &OverlayId::new())
        .unwrap();
    fs::remove_dir_all(tiers.dirs.release(&tiers.release)).unwrap();
    let refused = tiers
        .driver
        .clone_release(&tiers.release, &OverlayId::new());
    assert!(
        matches!(refused, Err(DiskError::NotFound(_))),
        "{refused:?}"
    );
    assert_eq!(
        files::names(&tiers.dirs.slow.join("overlays"))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_delta_of_the_same_release_is_copied_and_of_another_refused() {
    let tiers = Tiers::new();
    let (first, delta) = (OverlayId::new(), DeltaId::new());
    tiers.driver.clone_release(&tiers.release, &first).unwrap();
    io(&tiers.dirs.overlay(&first), "write -P 0x43 8k 4k");
    let folder = tiers.dirs.delta(&delta);
    fs::create_dir(&folder).unwrap();
    fs::copy(tiers.dirs.overlay(&first), folder.join("overlay.qcow2")).unwrap();
    let copy = OverlayId::new();
    let cancel = Cancel::new();
    tiers
        .driver
        .clone_delta(&tiers.release, &delta, &copy, &cancel)
        .unwrap();
    io(&tiers.dirs.overlay(&copy), "read -P 0x43 8k 4k");
    tiers.make_release("r-2");
    let other =
        tiers
            .driver
            .clone_delta(&"r-2".parse().unwrap(), &delta, &OverlayId::new(), &cancel);
    assert!(matches!(other, Err(DiskError::Invalid(_))), "{other:?}");
    fs::write(folder.join("overlay.qcow2"), "cut").unwrap();
    let damaged = tiers
        .driver
        .clone_delta(&tiers.release, &delta, &OverlayId::new(), &cancel);
    assert!(matches!(damaged, Err(DiskError::Damaged(_))), "{damaged:?}");
}

#[test]
fn drafts_are_made_copied_and_grown() {
    let tiers = Tiers::new();
    let (copy, empty) = (DraftId::new(), DraftId::new());
    tiers
        .driver
        .draft_of_release(&tiers.release, &copy, &Cancel::new())
        .unwrap();
    io(&tiers.dirs.draft(&copy), "read -P 0x41 0 1M");
    let disk = tiers.driver.create(&empty, 1 << 30).unwrap();
    assert!(tiers.driver.create(&empty, 1000).is_err());
    assert!(tiers.driver.grow(&disk, 1 << 20).is_err(), "shrunk");
    tiers.driver.grow(&disk, 2 << 30).unwrap();
    assert_eq!(tiers.driver.usage(&disk).unwrap().virtual_bytes, 2 << 30);
    let overlay = DiskRef::Qcow2Overlay {
        overlay: OverlayId::new(),
        release: tiers.release.clone(),
    };
    assert!(tiers.driver.grow(&overlay, 8 << 30).is_err());
}

#[test]
fn a_disk_in_use_is_neither_reset_nor_copied() {
    let tiers = Tiers::new();
    let id = OverlayId::new();
    let disk = tiers.driver.clone_release(&tiers.release, &id).unwrap();
    let path = tiers.dirs.overlay(&id);
    assert!(!lock::in_use(&path).unwrap());
    // qemu-io holds the image with QEMU's own locks until its standard input ends.
    let mut user = Command::new("qemu-io")
        .args(["-f", "qcow2", path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while !lock::in_use(&path).unwrap() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let reset = tiers.driver.reset(&disk);
    assert!(matches!(reset, Err(DiskError::InUse(_))), "{reset:?}");
    let guard = lock::read_guard(&path, "the disk");
    assert!(matches!(guard, Err(DiskError::InUse(_))), "{guard:?}");
    drop(user.stdin.take());
    user.wait().unwrap();
    tiers.driver.reset(&disk).unwrap();
    // And the other way round: nobody writes what is being copied.
    let guard = lock::read_guard(&path, "the disk").unwrap();
    assert!(!try_io(&path, "write 0 4k"));
    drop(guard);
    io(&path, "write 0 4k");
}

#[test]
fn clones_are_quick() {
    let tiers = Tiers::new();
    tiers
        .driver
        .clone_release(&tiers.release, &OverlayId::new())
        .unwrap();
    let mut times: Vec<_> = (0..60)
        .map(|_| {
            let start = Instant::now();
            tiers
                .driver
                .clone_release(&tiers.release, &OverlayId::new())
                .unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("clone: median {:?}, slowest {:?}", times[30], times[59]);
}

/// What a desktop does all day: a few kilobytes here and there.
#[test]
fn scattered_writes_take_little_more_than_they_are() {
    use std::io::Write;
    const WRITES: u64 = 4000;
    let tiers = Tiers::new();
    let overlay = OverlayId::new();
    let disk = tiers
        .driver
        .clone_release(&tiers.release, &overlay)
        .unwrap();
    let path = tiers.dirs.overlay(&overlay);
    let mut writer = Command::new("qemu-io")
        .args(["-f", "qcow2", path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = String::new();
    for n in 0..WRITES {
        // An odd factor goes through all blocks of the 4 GiB.
        let block = n.wrapping_mul(2_654_435_761) % (1 << 20);
        text += &format!("write -q -P 0x51 {} 4k\n", block * 4096);
    }
    let mut input = writer.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(writer.wait().unwrap().success());
    let (data, takes) = (
        WRITES * 4096,
        tiers.driver.usage(&disk).unwrap().bytes_on_disk,
    );
    println!(
        "{WRITES} scattered writes of 4 KiB: {takes} bytes, {:.3} times the data",
        takes as f64 / data as f64
    );
    assert!(takes * 10 <= data * 11, "{takes} bytes for {data}");
}

#[test]
fn restore_points_keep_what_a_disk_was() {
    let tiers = Tiers::new();
    let overlay = OverlayId::new();
    let driver = &tiers.driver;
    let never = Cancel::new();
    let disk = driver.clone_release(&tiers.release, &overlay).unwrap();
    assert_eq!(driver.find(&overlay).unwrap(), disk);
    let path = tiers.dirs.overlay(&overlay);
    io(&path, "write -P 0x42 4k 4k");
    let (one, two): (PointId, PointId) = ("p-1".parse().unwrap(), "p-2".parse().unwrap());
    let taken = driver.take_point(&disk, &one, &never).unwrap();
    io(&path, "write -P 0x43 4k 4k");
    // Again: the same point, and not the disk of now.
    assert_eq!(driver.take_point(&disk, &one, &never).unwrap(), taken);
    driver.take_point(&disk, &two, &never).unwrap();
    let listed = driver.points(&overlay).unwrap();
    assert_eq!(
        listed.iter().map(|p| &p.point).collect::<Vec<_>>(),
        [&one, &two]
    );
    assert!(listed[0].bytes_on_disk > 0 && listed[0].taken <= listed[1].taken);

    driver.restore_point(&disk, &one, &never).unwrap();
    io(&path, "read -P 0x42 4k 4k");
    driver.reset(&disk).unwrap();
    io(&path, "read -P 0x41 4k 4k");
    driver.restore_point(&disk, &two, &never).unwrap();
    io(&path, "read -P 0x43 4k 4k");
    assert!(driver.delete_point(&overlay, &one).unwrap());
    assert!(!driver.delete_point(&overlay, &one).unwrap());
    let gone = driver.restore_point(&disk, &one, &never);
    assert!(matches!(gone, Err(DiskError::NotFound(_))), "{gone:?}");

    // Cancelled work leaves nothing, and a disk without its release under it restores nothing.
    let cancelled = Cancel::new();
    cancelled.cancel();
    let three: PointId = "p-3".parse().unwrap();
    let _ = driver.take_point(&disk, &three, &cancelled);
    let names = files::names(&tiers.dirs.points(&overlay)).unwrap();
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");

    assert!(driver.delete(&disk).unwrap());
    assert!(
        driver.points(&overlay).unwrap().is_empty(),
        "points outlived their disk"
    );
    let gone = driver.take_point(&disk, &two, &never);
    assert!(matches!(gone, Err(DiskError::NotFound(_))), "{gone:?}");
}

#[test]
fn an_exported_disk_needs_nothing_else() {
    let tiers = Tiers::new();
    let overlay = OverlayId::new();
    let disk = tiers
        .driver
        .clone_release(&tiers.release, &overlay)
        .unwrap();
    io(&tiers.dirs.overlay(&overlay), "write -P 0x42 4k 4k");
    let to = tiers.dirs.slow.join("exported.qcow2");
    tiers.driver.export(&disk, &to, &Cancel::new()).unwrap();
    fs::remove_dir_all(tiers.dirs.release(&tiers.release)).unwrap();
    for command in [
        "read -P 0x41 0 4k",
        "read -P 0x42 4k 4k",
        "read -P 0x41 8k 1016k",
    ] {
        io(&to, command);
    }
    let again = tiers.driver.export(&disk, &to, &Cancel::new());
    assert!(matches!(again, Err(DiskError::NotFound(_))), "{again:?}");
}

#[test]
fn a_disk_that_is_a_volume_is_not_this_driver_s() {
    let tiers = Tiers::new();
    let volume = DiskRef::LvmVolume {
        overlay: OverlayId::new(),
        release: tiers.release.clone(),
    };
    for refused in [
        tiers.driver.usage(&volume).map(drop),
        tiers.driver.reset(&volume),
    ] {
        assert!(matches!(refused, Err(DiskError::Invalid(_))), "{refused:?}");
    }
}
