//! Seal and fork on real QEMU with the tiny image.

mod common;

use common::*;
use lyceum_hypervisor::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_forks_differ_in_everything_that_is_theirs_and_share_the_rest() {
    let release = release().await;
    let room = Classroom::new();
    let (a, b) = tokio::join!(room.fork(release), room.fork(release));
    eprintln!("a {:?}\nb {:?}", a.usable, b.usable);
    for machine in [&a, &b] {
        let usable = &machine.usable;
        assert!(usable.guest_helper && usable.identity_ms.is_some() && usable.address_ms.is_some());
        let request = machine.instance.request();
        let Some(Nic {
            link: NicLink::User { address, .. },
            ..
        }) = request.nic
        else {
            panic!("no NIC")
        };
        assert_eq!(usable.address, Some(format!("{address}/24")));
        let usage = machine.instance.usage().await.expect("usage");
        assert!(
            usage.pss_kib > 0 && usage.rss_kib >= usage.pss_kib && usage.cpu_ms > 0,
            "{usage:?}"
        );
    }
    assert!(a.usable.ssh_host_key.is_some());
    assert_ne!(a.usable.ssh_host_key, b.usable.ssh_host_key);

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
