//! Seal and fork.

use crate::common::*;
use lyceum_hypervisor::*;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn two_forks_differ_in_everything_that_is_theirs_and_share_the_rest() {
    let release = release().await;
    let room = Classroom::new();
    let (a, b) = tokio::join!(room.fork(release), room.fork(release));
    eprintln!("a {:?}\nb {:?}", a.usable, b.usable);
    for machine in [&a, &b] {
        let usable = &machine.usable;
        assert!(usable.guest_helper && usable.identity_ms.is_some());
        // Invariant: nothing is reachable before its identity is new.
        assert!(usable.identity_ms < usable.address_ms);
        let request = machine.instance.request();
        let Some(Nic {
            link: NicLink::User { address, .. },
            mac,
        }) = request.nic
        else {
            panic!("no NIC")
        };
        assert_eq!(usable.address, Some(format!("{address}/24")));
        let identity = request.identity.expect("identity");
        assert_eq!(machine.sh("cat /etc/machine-id").await, identity.machine_id);
        assert_eq!(machine.sh("hostname").await, identity.hostname.as_str());
        assert_eq!(machine.sh("cat /sys/class/net/eth0/address").await, mac);
        let key = machine.sh("cat /etc/ssh/ssh_host_ed25519_key.pub").await;
        assert_eq!(Some(key), usable.ssh_host_key);
        let usage = machine.instance.usage().await.expect("usage");
        assert!(
            usage.pss_kib > 0 && usage.rss_kib >= usage.pss_kib && usage.cpu_ms > 0,
            "{usage:?}"
        );
        // Far below the nominal memory: the release's pages are shared or not touched.
        assert!(
            usage.pss_kib < u64::from(SIZE.memory_mib) * 1024 / 2,
            "{usage:?}"
        );
    }
    assert!(a.usable.ssh_host_key.is_some());
    assert_ne!(a.usable.ssh_host_key, b.usable.ssh_host_key);
    let random = "head -c 32 /dev/urandom | od -An -tx1";
    assert_ne!(a.sh(random).await, b.sh(random).await);

    a.sh("echo secret of a > /root/note; echo more > /tmp/note; sync")
        .await;
    assert_eq!(
        b.sh("cat /root/note /tmp/note 2>/dev/null || echo none")
            .await,
        "none"
    );
    a.instance.set_clipboard("of a").await.expect("set");
    b.instance.set_clipboard("of b").await.expect("set");
    assert_eq!(
        a.instance.clipboard().await.expect("get").trim_end(),
        "of a"
    );
    a.end().await;
    b.end().await;
    release.assert_unchanged();
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_runs_as_its_own_user_in_its_sandbox() {
    let release = release().await;
    let room = Classroom::new();
    let machine = room.fork(release).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", machine.instance.pid()))
        .expect("status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .expect("field");
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(field("Seccomp:"), ["2"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    if nix::unistd::geteuid().is_root() {
        assert!(
            !field("Uid:").contains(&"0".to_owned()),
            "QEMU runs as root"
        );
        assert!(field("Groups:").is_empty());
    }
    // A session of its own: a signal to the agent's does not reach it.
    let pid = nix::unistd::Pid::from_raw(machine.instance.pid() as i32);
    assert_eq!(nix::unistd::getsid(Some(pid)).expect("session"), pid);
    machine.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_an_end_and_a_new_fork() {
    let release = release().await;
    let room = Classroom::new();
    let request = room.fork_request(release);
    let machine = room.start(request.clone()).await;
    machine.sh("echo x > /root/mess; sync").await;
    let first = machine.usable.ssh_host_key.clone();
    machine.instance.end(Duration::ZERO).await.expect("end");
    assert_eq!(
        ended(&*machine.instance).await,
        ("it was ended".into(), true)
    );
    machine
        .instance
        .end(Duration::ZERO)
        .await
        .expect("twice is fine");
    assert!(!request.run_dir.exists());
    std::fs::remove_file(&request.disk.top).expect("remove");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        &release.disk.display().to_string(),
        &request.disk.top.display().to_string(),
    ]);
    let machine = room.start(request).await;
    assert_eq!(
        machine.sh("cat /root/mess 2>/dev/null || echo none").await,
        "none"
    );
    assert_ne!(machine.usable.ssh_host_key, first);
    machine.end().await;
}
