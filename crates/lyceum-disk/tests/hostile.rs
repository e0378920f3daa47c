//! Images that want to be read wrongly. Each plants a canary where the image points, and
//! proves that it does not get into the result.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Bench, CANARY, qemu_img};
use lyceum_disk::inspect::ImageFormat;
use lyceum_disk::qemu_img::{QemuImg, Run};
use lyceum_disk::sandbox::Sandbox;
use lyceum_disk::{Cancel, DiskError};
use std::fs;
use std::path::Path;

#[test]
fn backing_files_of_any_kind() {
    let bench = Bench::new();
    let canary = bench.text("canary");
    let json =
        format!(r#"json:{{"driver":"raw","file":{{"driver":"file","filename":"{canary}"}}}}"#);
    for (name, backing) in [
        ("absolute.qcow2", canary.as_str()),
        ("relative.qcow2", "canary"),
        ("json.qcow2", json.as_str()),
        ("nbd.qcow2", "nbd://127.0.0.1:10809/secret"),
        ("passwd.qcow2", "/etc/passwd"),
        ("anyname", "/etc/shadow"),
    ] {
        qemu_img(&[
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            backing,
            &bench.text(name),
            "1M",
        ]);
        let message = bench.refused(&bench.path(name), name, "backing file");
        assert!(message.contains("qemu-img convert"), "no cure: {message}");
    }
}

#[test]
fn external_data_file() {
    let bench = Bench::new();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &format!("data_file={},data_file_raw=on", bench.text("canary")),
        &bench.text("x.qcow2"),
        "64k",
    ]);
    bench.plant();
    bench.refused(&bench.path("x.qcow2"), "x.qcow2", "external data file");
    // The name alone, without the feature bit, is as suspicious.
    let bits = fs::read(bench.path("x.qcow2")).unwrap()[79] & !4;
    bench.patch(&bench.path("x.qcow2"), 79, &[bits]);
    bench.refused(&bench.path("x.qcow2"), "x.qcow2", "external data file");
}

#[test]
fn the_sandbox_alone_keeps_the_host_unread() {
    // As if the header checks had a hole: QEMU gets the hostile images directly.
    let bench = Bench::new();
    let canary = bench.text("canary");
    qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        &canary,
        &bench.text("b"),
        "64k",
    ]);
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &format!("data_file={canary},data_file_raw=on"),
        &bench.text("d"),
        "64k",
    ]);
    bench.plant();
    fs::write(
        bench.path("v"),
        format!("# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 128 FLAT \"{canary}\" 0\n"),
    )
    .unwrap();
    let qemu = QemuImg::new("qemu-img");
    for (name, format) in [
        ("b", ImageFormat::Qcow2),
        ("d", ImageFormat::Qcow2),
        ("v", ImageFormat::Vmdk),
    ] {
        let sandbox = Sandbox::new(&bench.path("work")).unwrap();
        let done = qemu.convert(
            &sandbox,
            &bench.path(name),
            format,
            1 << 20,
            &mut Run {
                cancel: &Cancel::new(),
                progress: &mut |_| {},
                space: &mut || Ok(()),
            },
        );
        let made = fs::read(sandbox.out().join("disk.qcow2")).unwrap_or_default();
        assert!(
            !made.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()),
            "{name}: the canary is in the result ({done:?})"
        );
        if name == "b" {
            // Read without its backing file: all zeros.
            done.unwrap();
        } else {
            done.unwrap_err();
        }
    }
}

#[test]
fn a_process_in_the_sandbox_sees_nothing_of_the_host() {
    let bench = Bench::new();
    let sandbox = Sandbox::new(&bench.path("work")).unwrap();
    let budget = lyceum_disk::sandbox::Budget {
        memory_bytes: 1 << 30,
        cpu_seconds: 10,
        file_bytes: 1 << 20,
    };
    let script = format!(
        "pwd; ls /; id -u; ls -A /out; cat {} /etc/passwd /etc/shadow; cat /image; echo x > /image; \
         echo x > /usr/x; cat /proc/self/status; (echo > /dev/tcp/127.0.0.1/9) && echo connected; echo made > /out/made; \
         cat /usr/bin/qemu-img /usr/bin/bash > /out/big; true",
        bench.text("canary")
    );
    let image = bench.path("image");
    fs::write(&image, "the image itself").unwrap();
    let output = sandbox
        .command(
            Path::new("/usr/bin/bash"),
            &["-c".into(), script.into()],
            Some(&image),
            budget,
        )
        .unwrap()
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(out.starts_with("/out\n"), "{out} {err}");
    assert!(out.contains("the image itself"), "{out} {err}");
    for forbidden in [CANARY, "root:", "connected", "Name:"] {
        assert!(!out.contains(forbidden), "{forbidden}: {out} {err}");
    }
    if nix::unistd::Uid::effective().is_root() {
        assert!(out.contains("61100"), "still root: {out}");
    }
    assert_eq!(fs::read(&image).unwrap(), b"the image itself");
    assert!(sandbox.out().join("made").exists(), "{err}");
    assert!(fs::metadata(sandbox.out().join("big")).unwrap().len() <= 1 << 20);
}

#[test]
fn encrypted() {
    let bench = Bench::new();
    for format in ["luks", "aes"] {
        let name = format!("{format}.qcow2");
        qemu_img(&[
            "create",
            "-q",
            "--object",
            "secret,id=s,data=secret-1",
            "-f",
            "qcow2",
            "-o",
            &format!("encrypt.format={format},encrypt.key-secret=s"),
            &bench.text(&name),
            "4M",
        ]);
        bench.refused(&bench.path(&name), &name, "encrypted");
    }
}

fn good_qcow2(bench: &Bench, name: &str) {
    bench.raw("data.raw", 16);
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        &bench.text("data.raw"),
        &bench.text(name),
    ]);
}

#[test]
fn truncated_at_many_places() {
    let bench = Bench::new();
    good_qcow2(&bench, "good.qcow2");
    let whole = fs::read(bench.path("good.qcow2")).unwrap();
    for keep in [
        0,
        50,
        100,
        4096,
        65_536,
        200_000,
        whole.len() / 2,
        whole.len() - 70_000,
    ] {
        fs::write(bench.path("cut.qcow2"), &whole[..keep]).unwrap();
        bench.refused(&bench.path("cut.qcow2"), "cut.qcow2", "");
    }
}

#[test]
fn lying_numbers() {
    let bench = Bench::new();
    good_qcow2(&bench, "good.qcow2");
    let whole = fs::read(bench.path("good.qcow2")).unwrap();
    let try_patch = |offset: u64, bytes: &[u8], expect: &str| {
        fs::write(bench.path("lie.qcow2"), &whole).unwrap();
        bench.patch(&bench.path("lie.qcow2"), offset, bytes);
        bench.refused(&bench.path("lie.qcow2"), "lie.qcow2", expect);
    };
    try_patch(24, &(1u64 << 60).to_be_bytes(), "");
    // 9 GiB with an L1 table that covers it: only too large.
    fs::remove_file(bench.path("good.qcow2")).unwrap();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        &bench.text("large.qcow2"),
        "9G",
    ]);
    bench.refused(
        &bench.path("large.qcow2"),
        "large.qcow2",
        "the tier can hold 8.0 GiB",
    );
    try_patch(24, &0u64.to_be_bytes(), "empty");
    try_patch(36, &u32::MAX.to_be_bytes(), "L1 table");
    try_patch(36, &0u32.to_be_bytes(), "L1 table");
    try_patch(40, &(1u64 << 50).to_be_bytes(), "L1 table");
    try_patch(40, &1u64.to_be_bytes(), "L1 table");
    try_patch(48, &(1u64 << 50).to_be_bytes(), "refcount table");
    try_patch(56, &u32::MAX.to_be_bytes(), "refcount table");
    try_patch(20, &63u32.to_be_bytes(), "cluster size");
    try_patch(4, &9u32.to_be_bytes(), "version 9");
    try_patch(72, &(1u64 << 40).to_be_bytes(), "features");
    try_patch(79, &[2], "corrupt");
    try_patch(100, &u32::MAX.to_be_bytes(), "header");
    try_patch(60, &u32::MAX.to_be_bytes(), "snapshots");
}

#[test]
fn a_lying_refcount_is_found_by_the_check() {
    let bench = Bench::new();
    good_qcow2(&bench, "good.qcow2");
    // The first L2 entry points to the L1 table: inside the file, aligned, and wrong.
    let whole = fs::read(bench.path("good.qcow2")).unwrap();
    let at = |offset: usize| u64::from_be_bytes(whole[offset..offset + 8].try_into().unwrap());
    let l1 = at(40) as usize;
    let l2 = at(l1) & 0x00ff_ffff_ffff_fe00;
    bench.patch(
        &bench.path("good.qcow2"),
        l2,
        &(l1 as u64 | 1 << 63).to_be_bytes(),
    );
    bench.refused(&bench.path("good.qcow2"), "good.qcow2", "");
}

#[test]
fn garbage_under_every_name() {
    let bench = Bench::new();
    let noise: Vec<u8> = (0..200_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for name in [
        "x.qcow2",
        "x.vmdk",
        "x.vhdx",
        "x.vdi",
        "x.iso",
        "x.img",
        "x",
        "../../x.img",
    ] {
        fs::write(bench.path("noise"), &noise).unwrap();
        bench.refused(&bench.path("noise"), name, "");
    }
    fs::write(bench.path("empty"), "").unwrap();
    for name in ["x.raw", "x.qcow2", "x.iso", "x"] {
        bench.refused(&bench.path("empty"), name, "");
    }
}

#[test]
fn archives_are_named_as_what_they_are() {
    let bench = Bench::new();
    let mut tar = vec![0; 2048];
    tar[257..262].copy_from_slice(b"ustar");
    fs::write(bench.path("t"), tar).unwrap();
    bench.refused(&bench.path("t"), "machine.ova", "OVA");
    fs::write(bench.path("g"), b"\x1f\x8b\x08 and so on").unwrap();
    bench.refused(&bench.path("g"), "disk.img.gz", "compressed");
}

#[test]
fn vmdk_that_names_other_files() {
    let bench = Bench::new();
    let canary = bench.text("canary");
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW 128 FLAT \"{canary}\" 0\n"
    );
    fs::write(bench.path("flat.vmdk"), &descriptor).unwrap();
    bench.refused(&bench.path("flat.vmdk"), "flat.vmdk", "descriptor");
    fs::write(
        bench.path("shadow.vmdk"),
        descriptor.replace(&canary, "/etc/shadow"),
    )
    .unwrap();
    bench.refused(&bench.path("shadow.vmdk"), "anything", "descriptor");

    // The same text inside a sparse image: with capacity 0 QEMU follows it.
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        &bench.text("sparse.vmdk"),
        "4M",
    ]);
    let good = fs::read(bench.path("sparse.vmdk")).unwrap();
    let mut text = descriptor.into_bytes();
    text.resize(1024, 0);
    bench.patch(&bench.path("sparse.vmdk"), 512, &text);
    bench.refused(
        &bench.path("sparse.vmdk"),
        "sparse.vmdk",
        "not part of the upload",
    );
    bench.patch(&bench.path("sparse.vmdk"), 12, &[0; 8]);
    bench.refused(
        &bench.path("sparse.vmdk"),
        "sparse.vmdk",
        "not part of the upload",
    );

    // A parent.
    fs::write(bench.path("sparse.vmdk"), &good).unwrap();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-F",
        "vmdk",
        "-b",
        &bench.text("sparse.vmdk"),
        &bench.text("child.vmdk"),
    ]);
    bench.refused(
        &bench.path("child.vmdk"),
        "child.vmdk",
        "difference to another disk",
    );

    // Numbers.
    for (offset, bytes) in [
        (12, u64::MAX),
        (12, 1 << 40),
        (20, 3),
        (56, 1 << 40),
        (36, 1 << 60),
    ] {
        fs::write(bench.path("lie.vmdk"), &good).unwrap();
        bench.patch(&bench.path("lie.vmdk"), offset, &bytes.to_le_bytes());
        bench.refused(&bench.path("lie.vmdk"), "lie.vmdk", "");
    }
}

#[test]
fn differencing_vdi_and_vhdx() {
    let bench = Bench::new();
    qemu_img(&["create", "-q", "-f", "vdi", &bench.text("a.vdi"), "4M"]);
    let good = fs::read(bench.path("a.vdi")).unwrap();
    bench.patch(&bench.path("a.vdi"), 76, &4u32.to_le_bytes());
    bench.refused(&bench.path("a.vdi"), "a.vdi", "difference to another disk");
    fs::write(bench.path("a.vdi"), &good).unwrap();
    bench.patch(&bench.path("a.vdi"), 440, &[7; 16]);
    bench.refused(&bench.path("a.vdi"), "a.vdi", "parent");
    fs::write(bench.path("a.vdi"), &good).unwrap();
    bench.patch(&bench.path("a.vdi"), 368, &(1u64 << 62).to_le_bytes());
    bench.refused(&bench.path("a.vdi"), "a.vdi", "tier can hold");

    qemu_img(&["create", "-q", "-f", "vhdx", &bench.text("a.vhdx"), "16M"]);
    let good = fs::read(bench.path("a.vhdx")).unwrap();
    // The metadata item "file parameters" and its value: has-parent is bit 1 of the second word.
    let guid = [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d];
    let entry = good.windows(8).position(|w| w == guid).unwrap();
    let table = good.windows(8).position(|w| w == b"metadata").unwrap();
    let offset = u32::from_le_bytes(good[entry + 16..entry + 20].try_into().unwrap()) as usize;
    bench.patch(
        &bench.path("a.vhdx"),
        (table + offset + 4) as u64,
        &2u32.to_le_bytes(),
    );
    bench.refused(
        &bench.path("a.vhdx"),
        "a.vhdx",
        "difference to another disk",
    );
    // A parent locator instead of the sector size.
    fs::write(bench.path("a.vhdx"), &good).unwrap();
    let locator = [
        0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab,
        0x0c,
    ];
    bench.patch(&bench.path("a.vhdx"), entry as u64, &locator);
    bench.refused(
        &bench.path("a.vhdx"),
        "a.vhdx",
        "difference to another disk",
    );
}

#[test]
fn a_raw_disk_stays_raw_whatever_it_begins_with() {
    let bench = Bench::new();
    // What a guest can write to its own disk: the header of a qcow2 that points to the host.
    qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        &bench.text("canary"),
        &bench.text("trick"),
        "64k",
    ]);
    let mut bytes = fs::read(bench.path("trick")).unwrap();
    bytes.resize(1 << 20, 0);
    fs::write(bench.path("trick"), &bytes).unwrap();
    let (format, read) = bench.import(&bench.path("trick"), "disk.raw").unwrap();
    assert_eq!(format, ImageFormat::Raw);
    assert!(read == bytes, "the raw bytes were read as something else");
    // Under a name that leaves it open it is a qcow2, and refused.
    bench.refused(&bench.path("trick"), "disk.img", "backing file");
}

#[test]
fn cut_short_raw_and_iso() {
    let bench = Bench::new();
    bench.raw("disk.raw", 4);
    // One partition from 1 MiB to 8 MiB.
    let mut entry = [0u8; 16];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&2048u32.to_le_bytes());
    entry[12..16].copy_from_slice(&14_336u32.to_le_bytes());
    bench.patch(&bench.path("disk.raw"), 446, &entry);
    bench.refused(&bench.path("disk.raw"), "disk.img", "cut short");
    let mut iso = vec![0; 40_000];
    iso[32_768..32_774].copy_from_slice(b"\x01CD001");
    iso[32_768 + 80..32_768 + 84].copy_from_slice(&10_000u32.to_le_bytes());
    iso[32_768 + 84..32_768 + 88].copy_from_slice(&10_000u32.to_be_bytes());
    iso[32_768 + 128..32_768 + 130].copy_from_slice(&2048u16.to_le_bytes());
    fs::write(bench.path("cd.iso"), &iso).unwrap();
    bench.refused(&bench.path("cd.iso"), "cd.iso", "cut short");
}

#[test]
fn good_images_of_every_format_arrive_whole() {
    let bench = Bench::new();
    let raw = bench.raw("data.raw", 24);
    let bytes = fs::read(&raw).unwrap();
    let with = |format: &str, options: &[&str], name: &str| {
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        arguments.extend(options);
        let (from, to) = (bench.text("data.raw"), bench.text(name));
        arguments.extend([from.as_str(), to.as_str()]);
        qemu_img(&arguments);
    };
    with("qcow2", &[], "a.qcow2");
    with("qcow2", &["-o", "compat=0.10"], "old.qcow2");
    with("qcow2", &["-c"], "packed.img");
    with(
        "qcow2",
        &["-c", "-o", "compression_type=zstd"],
        "zstd.qcow2",
    );
    with(
        "qcow2",
        &["-o", "extended_l2=on,cluster_size=128k"],
        "ext.qcow2",
    );
    with("vmdk", &[], "a.vmdk");
    with("vmdk", &["-o", "subformat=streamOptimized"], "stream.vmdk");
    with("vhdx", &[], "a.vhdx");
    with("vhdx", &["-o", "subformat=fixed"], "fixed.vhdx");
    with("vdi", &[], "a.vdi");
    with("vdi", &["-o", "static=on"], "static.vdi");
    for name in [
        "a.qcow2",
        "old.qcow2",
        "packed.img",
        "zstd.qcow2",
        "ext.qcow2",
        "a.vmdk",
        "stream.vmdk",
        "a.vhdx",
        "fixed.vhdx",
        "a.vdi",
        "static.vdi",
        "data.raw",
    ] {
        let (_, read) = bench
            .import(&bench.path(name), name)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(read == bytes, "{name}: other bytes");
        // Half of it is refused, not taken as a disk with zeros at its end.
        if name != "data.raw" {
            let whole = fs::read(bench.path(name)).unwrap();
            fs::write(bench.path("half"), &whole[..whole.len() / 2]).unwrap();
            bench.refused(&bench.path("half"), name, "");
        }
    }
}

#[test]
fn cancel_and_a_full_tier_leave_nothing() {
    let bench = Bench::new();
    good_qcow2(&bench, "good.qcow2");
    let image = bench.path("good.qcow2");
    let empty = || fs::read_dir(bench.path("work")).unwrap().next().is_none();
    let cancel = Cancel::new();
    let done = bench.import_with(
        &image,
        "good.qcow2",
        &cancel,
        &mut |_| cancel.cancel(),
        &mut || Ok(()),
    );
    assert!(matches!(done, Err(DiskError::Cancelled)), "{done:?}");
    assert!(empty());
    let mut steps = Vec::new();
    bench
        .import_with(
            &image,
            "good.qcow2",
            &Cancel::new(),
            &mut |s| steps.push(s),
            &mut || Ok(()),
        )
        .unwrap();
    assert!(
        steps
            .iter()
            .any(|s| matches!(s, lyceum_disk::import::Step::Converting(p) if *p >= 99.0)),
        "{steps:?}"
    );
    let full = bench.import_with(
        &image,
        "good.qcow2",
        &Cancel::new(),
        &mut |_| {},
        &mut || {
            Err(DiskError::Full {
                what: "the reserve is reached".into(),
            })
        },
    );
    assert!(matches!(full, Err(DiskError::Full { .. })), "{full:?}");
    assert!(empty());
}
