//! Processes that end, agents that are restarted, disks that are in use.

use crate::common::*;
use lyceum_hypervisor::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_noticed_with_the_reason() {
    let release = release().await;
    let room = Classroom::new();
    let machine = room.fork(release).await;
    kill(
        Pid::from_raw(machine.instance.pid() as i32),
        Signal::SIGKILL,
    )
    .expect("kill");
    let (reason, expected) = ended(&*machine.instance).await;
    assert!(reason.contains("signal 9") && !expected, "{reason}");
    assert!(machine.instance.capture(&room.path("delta")).await.is_err());
    assert!(machine.instance.usage().await.is_err());
    assert!(machine.instance.vnc().await.is_err());
    machine.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_shuts_down_ends_its_machine() {
    let release = release().await;
    let room = Classroom::new();
    let machine = room.fork(release).await;
    machine.sh("(sleep 3; poweroff -f) >/dev/null 2>&1 &").await;
    let (reason, _) = ended(&*machine.instance).await;
    assert!(reason.contains("shut down"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_found_again_after_all_handles_are_gone() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.fork_request(release);
    let machine = room.start(request.clone()).await;
    machine.instance.set_clipboard("kept").await.expect("set");
    let (pid, usable) = (machine.instance.pid(), machine.usable.clone());
    drop(machine);

    // Another agent: nothing in common but the directory.
    let agent = hypervisor();
    let instance = agent
        .adopt(&request.run_dir)
        .await
        .expect("adopt")
        .expect("it is there");
    assert_eq!((instance.pid(), instance.request()), (pid, request.clone()));
    assert_eq!(running(&*instance).await.expect("running"), usable);
    assert_eq!(instance.clipboard().await.expect("get").trim_end(), "kept");
    // All operations work on it.
    let delta = room.path("delta");
    instance.capture(&delta).await.expect("capture");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("kill");
    ended(&*instance).await;
    assert!(
        agent
            .adopt(&request.run_dir)
            .await
            .expect("adopt")
            .is_none()
    );
    assert!(
        agent
            .adopt(&room.path("nothing"))
            .await
            .expect("adopt")
            .is_none()
    );
    instance.end(Duration::ZERO).await.expect("end");
}

/// The agent ended between the first picture of a fork and the moment it was usable.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_fork_is_ended_and_says_so() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.fork_request(release);
    let machine = room.start(request.clone()).await;
    drop(machine);
    std::fs::remove_file(request.run_dir.join("running.json")).expect("as if it had not got there");
    let instance = hypervisor()
        .adopt(&request.run_dir)
        .await
        .expect("adopt")
        .expect("it is there");
    let (reason, expected) = ended(&*instance).await;
    assert!(reason.contains("restarted") && !expected, "{reason}");
    instance.end(Duration::ZERO).await.expect("end");
}

/// The agent ended while the desktop stood still for a suspend.
#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_that_stood_still_goes_on_after_adoption() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.fork_request(release);
    let machine = room.start(request.clone()).await;
    drop(machine);
    let stream = tokio::net::UnixStream::connect(request.run_dir.join("qmp.sock"))
        .await
        .expect("connect");
    let qmp = lyceum_qemu::qmp::Qmp::greet(stream).await.expect("greet");
    qmp.execute("stop", serde_json::Value::Null)
        .await
        .expect("stop");
    drop(qmp);
    let instance = hypervisor()
        .adopt(&request.run_dir)
        .await
        .expect("adopt")
        .expect("it is there");
    instance
        .set_clipboard("awake")
        .await
        .expect("the guest answers");
    instance.end(Duration::ZERO).await.expect("end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_has_one_writer() {
    let release = release().await;
    let room = Classroom::new();
    let first = room.fork(release).await;
    let mut second = room.fork_request(release);
    second.disk.top = first.overlay();
    let run_dir = second.run_dir.clone();
    match room.hypervisor.start(second).await {
        Err(StartError::Other(e)) => assert!(e.to_string().contains("lock"), "{e}"),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("two QEMUs on one overlay"),
    }
    assert!(!run_dir.exists());
    // And a run directory one machine.
    let again = room.hypervisor.start(first.instance.request()).await;
    assert!(matches!(
        again,
        Err(StartError::Other(HypervisorError::State(_)))
    ));
    assert_eq!(first.sh("echo alive").await, "alive");
    first.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_leave_nothing_behind() {
    let release = release().await;
    let room = Classroom::new();
    let good = room.fork_request(release);
    let with = |change: fn(&mut StartRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let bad = [
        with(|r| r.size.memory_mib = 0),
        with(|r| r.size.memory_mib = 512),
        with(|r| r.nic.as_mut().expect("nic").mac = "52:54:00:00:00:01,romfile=/etc/passwd".into()),
        with(|r| r.identity.as_mut().expect("id").machine_id = "../../etc".into()),
        with(|r| r.disk.top = "/nonexistent/o.qcow2".into()),
        with(|r| r.disk.top = "/etc/hostname".into()),
        with(|r| r.run_dir = "relative".into()),
        with(|r| {
            let StartFrom::Fork { sealed } = &mut r.from else {
                unreachable!()
            };
            sealed.ram = "/nonexistent".into();
        }),
    ];
    for request in bad {
        let text = format!("{request:?}");
        assert!(
            room.hypervisor.start(request.clone()).await.is_err(),
            "{text}"
        );
        assert!(!request.run_dir.exists(), "{text}");
    }
    room.start(good).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_directory_is_no_problem() {
    let release = release().await;
    let room = Classroom::new();
    let mut request = room.fork_request(release);
    request.run_dir = room.path(&"long".repeat(30)).join("run");
    let machine = room.start(request).await;
    machine.instance.vnc().await.expect("vnc");
    machine.end().await;
}
