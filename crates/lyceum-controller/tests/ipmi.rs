//! A host is switched on through the simulator of a board's controller, `ipmi_sim` of Debian's openipmi, with
//! the real `ipmitool`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lyceum_controller::power::wake::ipmi;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Board {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Board {
    fn new() -> Board {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let port = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        std::fs::create_dir(at("state")).unwrap();
        // Called with what is to be set: `IDENTITY set power 1`.
        let script = format!(
            "#!/bin/sh\nwhile [ $# -gt 0 ]; do if [ \"$1\" = power ] && [ \"$2\" = 1 ]; then touch '{}'; fi; shift; done\n",
            at("on").display()
        );
        std::fs::write(at("chassis"), script).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(at("chassis"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let auths = ["callback", "user", "operator", "admin"]
            .map(|who| format!("  allowed_auths_{who} none md2 md5 straight\n"))
            .concat();
        let config = format!(
            "name \"board\"\nstartlan 1\n  addr 127.0.0.1 {port}\n  priv_limit admin\n{auths}  guid a123456789abcdefa123456789abcdef\nendlan\nchassis_control \"{}\"\nuser 2 true \"admin\" \"s3cret\" admin 10 none md2 md5 straight\n",
            at("chassis").display()
        );
        std::fs::write(at("lan.conf"), config).unwrap();
        std::fs::write(
            at("commands"),
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
        )
        .unwrap();
        let child = Command::new("ipmi_sim")
            .arg("-n")
            .arg("-c")
            .arg(at("lan.conf"))
            .arg("-f")
            .arg(at("commands"))
            .arg("-s")
            .arg(at("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ipmi_sim is needed: scripts/setup installs it (Debian's openipmi)");
        Board { child, dir, port }
    }

    fn password(&self, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join("password");
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn on(&self, password: &Path) -> Result<String, String> {
        let address = format!("127.0.0.1:{}", self.port);
        ipmi(&address, "admin", password, &["chassis", "power", "on"]).await
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_board_switches_its_machine_on_for_whoever_knows_the_password() {
    let board = Board::new();
    let right = board.password("s3cret");
    let until = Instant::now() + Duration::from_secs(120);
    // It takes a moment until it listens.
    while let Err(why) = board.on(&right).await {
        assert!(Instant::now() < until, "{why}");
        assert!(!why.contains("s3cret"), "{why}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(board.dir.path().join("on").exists());
    std::fs::remove_file(board.dir.path().join("on")).unwrap();

    let wrong = board.password("another-one");
    let why = board.on(&wrong).await.unwrap_err();
    assert!(
        why.contains("ipmitool") && !why.contains("another-one"),
        "{why}"
    );
    assert!(!board.dir.path().join("on").exists());
    let why = board.on(Path::new("/nonexistent")).await.unwrap_err();
    assert!(why.contains("no password"), "{why}");
}
