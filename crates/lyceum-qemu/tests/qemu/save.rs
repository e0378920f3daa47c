//! Suspend, resume, capture, hand-out.

use crate::common::*;
use lyceum_delta::{Delta, OVERLAY_FILE};
use lyceum_hypervisor::*;
use std::path::Path;

fn with(request: &StartRequest, from: StartFrom) -> StartRequest {
    StartRequest {
        from,
        ..request.clone()
    }
}

fn resume(release: &Release, delta: &Path) -> StartFrom {
    StartFrom::Resume {
        sealed: release.sealed.clone(),
        delta: delta.to_owned(),
    }
}

/// A process, files in memory and on disk, and something in the page cache only.
async fn work(machine: &Machine, mark: &str) {
    machine
        .sh(&format!(
            "echo {mark} > /run/mark; echo {mark} > /root/mark; sync; echo {mark} > /root/unsynced"
        ))
        .await;
    machine.sh("(while true; do echo $((++n)) > /run/count; usleep 20000; done) >/dev/null 2>&1 & echo $! > /run/pid").await;
}

async fn assert_work(machine: &Machine, mark: &str) {
    assert_eq!(
        machine.sh("cat /run/mark /root/mark /root/unsynced").await,
        format!("{mark}\n{mark}\n{mark}")
    );
    // The process goes on counting.
    machine.sh("kill -0 $(cat /run/pid); a=$(cat /run/count); i=0; while [ $(cat /run/count) = $a ]; do i=$((i+1)); [ $i -lt 200 ]; usleep 20000; done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_desktop_comes_back_as_it_was_more_than_once() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.fork_request(release);
    let mut machine = room.start(request.clone()).await;
    work(&machine, "first").await;
    let key = machine.usable.ssh_host_key.clone();
    for round in ["one", "two"] {
        let delta = room.path(&format!("delta-{round}"));
        let summary = machine.instance.suspend(&delta).await.expect("suspend");
        eprintln!("{round}: {summary:?}");
        assert!(summary.memory_bytes > 0 && summary.device_bytes > 0 && summary.overlay_bytes > 0);
        assert_eq!(
            ended(&*machine.instance).await,
            ("it was suspended".into(), true)
        );
        assert!(!request.run_dir.exists());
        let header = Delta::read_header(&delta).expect("header");
        assert_eq!(header.overlay, None);
        assert_eq!(header.nic_mac, request.nic.as_ref().map(|n| n.mac.clone()));
        machine = room.start(with(&request, resume(release, &delta))).await;
        eprintln!("resumed: {:?}", machine.usable);
        assert_work(&machine, "first").await;
        // The same machine, not a new one.
        assert_eq!(
            Some(machine.sh("cat /etc/ssh/ssh_host_ed25519_key.pub").await),
            key
        );
        assert!(machine.usable.address.is_some());
        let skew: i64 = machine
            .sh("date +%s")
            .await
            .parse::<i64>()
            .expect("seconds")
            - now();
        assert!(skew.abs() < 30, "the clock is off by {skew} s");
    }
    machine.end().await;
    release.assert_unchanged();
}

fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock")
        .as_secs() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_desktop_goes_on_and_is_handed_out_with_new_identities() {
    let release = release().await;
    let room = Classroom::new();
    let teacher = room.fork(release).await;
    work(&teacher, "lesson").await;
    let delta = room.path("lesson");
    let summary = teacher.instance.capture(&delta).await.expect("capture");
    eprintln!("{summary:?}");
    assert_work(&teacher, "lesson").await;
    teacher.sh("echo later > /root/later; sync").await;

    let header = Delta::read_header(&delta).expect("header");
    let mut requests = Vec::new();
    for _ in 0..2 {
        let mut request = room.fork_request(release);
        request.from = StartFrom::HandOut {
            sealed: release.sealed.clone(),
            delta: delta.clone(),
        };
        std::fs::copy(delta.join(OVERLAY_FILE), &request.disk.top).expect("copy");
        Delta::verify_overlay(&header, &request.disk.top).expect("overlay");
        requests.push(request);
    }
    let (a, b) = tokio::join!(
        room.start(requests[0].clone()),
        room.start(requests[1].clone())
    );
    let mut keys = vec![teacher.usable.ssh_host_key.clone()];
    for student in [&a, &b] {
        eprintln!("handed out: {:?}", student.usable);
        assert_work(student, "lesson").await;
        assert_eq!(
            student.sh("cat /root/later 2>/dev/null || echo none").await,
            "none"
        );
        let request = student.instance.request();
        let identity = request.identity.clone().expect("identity");
        assert_eq!(
            student.sh("cat /etc/machine-id; hostname").await,
            format!("{}\n{}", identity.machine_id, identity.hostname)
        );
        // The teacher's network card is gone, its own is there.
        let nic = request.nic.clone().expect("NIC");
        assert_eq!(student.sh("cat /sys/class/net/eth*/address").await, nic.mac);
        let NicLink::User { address, .. } = nic.link else {
            panic!("another network")
        };
        assert_eq!(student.usable.address, Some(format!("{address}/24")));
        assert!(student.usable.identity_ms < student.usable.address_ms);
        keys.push(student.usable.ssh_host_key.clone());
    }
    assert!(keys.iter().all(Option::is_some));
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    let random = "head -c 32 /dev/urandom | od -An -tx1";
    assert_ne!(a.sh(random).await, b.sh(random).await);

    // What was handed out is a desktop like any other.
    let saved = room.path("student");
    a.instance.suspend(&saved).await.expect("suspend");
    let a = room
        .start(with(&requests[0], resume(release, &saved)))
        .await;
    assert_work(&a, "lesson").await;
    for machine in [teacher, a, b] {
        machine.end().await;
    }
    release.assert_unchanged();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspend_that_fails_leaves_the_desktop_running() {
    let release = release().await;
    let room = Classroom::new();
    let machine = room.fork(release).await;
    work(&machine, "kept").await;
    let there = room.path("there");
    std::fs::create_dir(&there).expect("mkdir");
    let nowhere = room.path("missing").join("delta");
    for out in [&there, &nowhere] {
        machine
            .instance
            .suspend(out)
            .await
            .expect_err("it can't be written there");
        assert_work(&machine, "kept").await;
    }
    // QEMU's own part fails after the guest was stopped.
    let request = machine.instance.request();
    std::fs::create_dir(request.run_dir.join("q/state")).expect("mkdir");
    let delta = room.path("delta");
    machine
        .instance
        .suspend(&delta)
        .await
        .expect_err("the device state can't be written");
    assert!(!delta.exists() && !room.path("delta.partial").exists());
    assert_work(&machine, "kept").await;
    std::fs::remove_dir(request.run_dir.join("q/state")).expect("rmdir");
    machine
        .instance
        .suspend(&delta)
        .await
        .expect("now it works");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_deltas_are_refused_before_there_is_a_process() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.fork_request(release);
    let machine = room.start(request.clone()).await;
    let delta = room.path("delta");
    machine.instance.suspend(&delta).await.expect("suspend");

    let refuse = async |request: StartRequest, why: &str| {
        match room.hypervisor.start(request.clone()).await {
            Err(StartError::BadDelta(text)) => assert!(text.contains(why), "{text}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a bad delta was taken: {why}"),
        }
        assert!(!request.run_dir.exists());
    };
    let copy = |name: &str| {
        let to = room.path(name);
        std::fs::create_dir(&to).expect("mkdir");
        for entry in std::fs::read_dir(&delta).expect("dir") {
            let entry = entry.expect("entry");
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
        }
        to
    };
    let cut = copy("cut");
    let length = std::fs::metadata(cut.join("pages")).expect("meta").len();
    std::fs::File::options()
        .write(true)
        .open(cut.join("pages"))
        .expect("open")
        .set_len(length - 1)
        .expect("cut");
    refuse(with(&request, resume(release, &cut)), "cut short").await;
    let flipped = copy("flipped");
    let mut bytes = std::fs::read(flipped.join("device-state")).expect("read");
    bytes[100] ^= 1;
    std::fs::write(flipped.join("device-state"), bytes).expect("write");
    refuse(with(&request, resume(release, &flipped)), "damaged").await;
    refuse(
        with(&request, resume(release, &room.path("missing"))),
        "No such file",
    )
    .await;
    let mut other = release.sealed.clone();
    other.release = "release-2".parse().expect("id");
    refuse(
        with(
            &request,
            StartFrom::Resume {
                sealed: other,
                delta: delta.clone(),
            },
        ),
        "belongs to release release-1",
    )
    .await;
    let mut larger = with(&request, resume(release, &delta));
    larger.size.memory_mib = 512;
    refuse(larger, "256 MiB").await;
    let mut other_nic = with(&request, resume(release, &delta));
    other_nic.nic.as_mut().expect("NIC").mac = "52:54:00:00:00:ff".into();
    refuse(other_nic, "network card").await;

    // The right one still works.
    let machine = room.start(with(&request, resume(release, &delta))).await;
    machine.end().await;
}
