//! Boot from power on, and what never gets ready.

use crate::common::*;
use lyceum_delta::{Delta, OVERLAY_FILE};
use lyceum_hypervisor::*;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_linked_clone_gets_identity_and_address_too() {
    let release = release().await;
    let room = Classroom::new();
    let mut request = room.request(
        StartFrom::Cold,
        room.overlay(&release.disk),
        Some(release.disk.clone()),
    );
    request.disk.release = Some(release.sealed.release.clone());
    let machine = room.start(request.clone()).await;
    eprintln!("{:?}", machine.usable);
    assert!(machine.usable.guest_helper && machine.usable.ssh_host_key.is_some());
    let Some(Nic {
        link: NicLink::User { address, .. },
        ..
    }) = request.nic
    else {
        panic!("no NIC")
    };
    assert_eq!(machine.usable.address, Some(format!("{address}/24")));
    let error = machine
        .instance
        .suspend(&room.path("delta"))
        .await
        .expect_err("there is no sealed memory");
    assert!(error.to_string().contains("booted cold"), "{error}");

    // Its disk is captured while it runs, with what the guest had not written out yet.
    machine.sh("echo before > /root/mark").await;
    let delta = room.path("delta");
    let summary = machine.instance.capture(&delta).await.expect("capture");
    eprintln!("{summary:?}");
    assert!(
        summary.disk_only && summary.overlay_bytes > 0,
        "{summary:?}"
    );
    assert_eq!((summary.memory_bytes, &summary.not_flushed), (0, &None));
    assert_eq!(
        machine
            .sh("echo after > /root/mark; sync; cat /root/mark")
            .await,
        "after"
    );
    let header = Delta::read_header(&delta).expect("header");
    assert!(!header.holds_memory());
    let sealed = release.sealed.clone();
    room.hypervisor
        .verify_delta(&delta, &sealed, request.size)
        .await
        .expect("it is whole");
    machine.end().await;

    // It is booted from, and not resumed.
    let mut again = room.fork_request(release);
    again.from = StartFrom::Resume {
        sealed,
        delta: delta.clone(),
    };
    let refused = room.hypervisor.start(again).await.map(drop);
    assert!(
        matches!(&refused, Err(StartError::BadDelta(why)) if why.contains("disk alone")),
        "{refused:?}"
    );
    let top = room.path("back.qcow2");
    std::fs::copy(delta.join(OVERLAY_FILE), &top).expect("copy");
    Delta::verify_overlay(&header, &top).expect("overlay");
    qemu_img(&["check", "-q", &top.display().to_string()]);
    let back = room.request(StartFrom::Cold, top, Some(release.disk.clone()));
    let machine = room.start(back).await;
    assert_eq!(machine.sh("cat /root/mark").await, "before");
    machine.end().await;
    release.assert_unchanged();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_restarted_during_a_cold_boot_goes_on_waiting() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.request(
        StartFrom::Cold,
        room.overlay(&release.disk),
        Some(release.disk.clone()),
    );
    // In a runtime of its own, so that everything of the first agent is gone afterwards.
    let (agent, first) = (room.hypervisor.clone(), request.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        runtime.block_on(async { agent.start(first).await.map(drop).expect("start") });
    })
    .join()
    .expect("thread");
    let instance = hypervisor()
        .adopt(&request.run_dir)
        .await
        .expect("adopt")
        .expect("it is there");
    let usable = running(&*instance).await.expect("usable");
    assert!(usable.guest_helper && usable.address.is_some());
    instance.end(Duration::ZERO).await.expect("end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_disk_never_gets_ready_and_says_so() {
    let room = Classroom::new();
    let blank = room.path("blank.qcow2");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        &blank.display().to_string(),
        "64M",
    ]);
    for from in [
        StartFrom::Cold,
        StartFrom::ColdForSeal {
            ram: room.path("ram"),
            device_state: room.path("device-state"),
        },
    ] {
        let mut request = room.request(from, blank.clone(), None);
        request.nic = None;
        // Longer than the patience with a helper: firmware alone must not count as a guest.
        request.ready_timeout_ms = 6000;
        let instance = room.hypervisor.start(request).await.expect("start");
        let reason = running(&*instance)
            .await
            .expect_err("it has nothing to boot");
        assert!(
            reason.contains("not usable within 6.0 s") && reason.contains("helper"),
            "{reason}"
        );
        assert!(!std::path::Path::new(&format!("/proc/{}", instance.pid())).exists());
        instance.end(Duration::ZERO).await.expect("end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_usable_as_soon_as_there_is_something_to_see() {
    let release = release().await;
    let room = Classroom::new();
    let mut request = room.request(
        StartFrom::Cold,
        room.overlay(&release.disk),
        Some(release.disk.clone()),
    );
    request.identity = None;
    let machine = room.start(request).await;
    // Without patience for it the guest is ended, and the reason says so.
    machine
        .instance
        .end(Duration::from_millis(1))
        .await
        .expect("end");
    let (reason, expected) = ended(&*machine.instance).await;
    assert!(expected && reason.contains("did not shut down"), "{reason}");
}

/// The tiny image ignores the power button.
#[tokio::test(flavor = "multi_thread")]
async fn a_draft_shuts_down_through_its_helper() {
    let release = release().await;
    let room = Classroom::new();
    let top = room.overlay(&release.disk);
    let mut request = room.request(StartFrom::Cold, top.clone(), Some(release.disk.clone()));
    request.identity = None;
    let machine = room.start(request).await;
    machine
        .instance
        .end(Duration::from_secs(300))
        .await
        .expect("end");
    let (reason, expected) = ended(&*machine.instance).await;
    assert_eq!(
        (reason.as_str(), expected),
        ("the guest shut down, asked through its helper", true)
    );
    qemu_img(&["check", "-q", &top.display().to_string()]);
}

/// The probe must come to a clear end on every host.
#[test]
fn kvm_is_judged_by_running_a_guest() {
    let binary = std::path::Path::new("qemu-system-x86_64");
    let cpu = lyceum_qemu::QemuConfig::default().cpu_model;
    let patience = Duration::from_secs(60);
    let run = |cpu: &str| lyceum_qemu::probe::run_trivial_guest(binary, "tcg", cpu, patience);
    assert_eq!(run(&cpu), Ok(()), "the trivial guest itself is wrong");
    // It needs what every 64-bit guest needs: on a CPU without it, it must not pass.
    let without = run("qemu32").expect_err("a 32-bit CPU passed");
    assert!(without.contains("crashed"), "{without}");
    let began = std::time::Instant::now();
    let verdict = lyceum_qemu::probe::kvm(binary, &cpu);
    eprintln!("{verdict:?} after {:?}", began.elapsed());
    assert!(
        lyceum_qemu::probe::missing_devices(binary)
            .expect("devices")
            .is_empty()
    );
}
