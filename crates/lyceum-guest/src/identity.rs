//! What makes a fork its own machine, and what a sealed machine must forget.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};

use crate::files;
use crate::protocol::Identity;
use crate::sys;

const RANDOM_SEEDS: [&str; 2] = [
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
];
/// Directories where DHCP clients keep their leases.
const LEASE_DIRS: [&str; 3] = [
    "/var/lib/dhcp",
    "/var/lib/dhcpcd",
    "/var/lib/NetworkManager",
];

/// A step of becoming somebody that failed.
#[derive(Debug, thiserror::Error)]
#[error("can't {step}: {source}")]
pub struct IdentityError {
    step: &'static str,
    source: io::Error,
}

fn step<T>(step: &'static str, result: io::Result<T>) -> Result<T, IdentityError> {
    result.map_err(|source| IdentityError { step, source })
}

/// The machine whose identity it is: `/`, or a directory in tests.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The one this program runs on.
    #[must_use]
    pub fn this() -> Self {
        Self { root: "/".into() }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Removes what a fork must not inherit, and puts everything on disk.
    pub fn prepare_seal(&self) -> Result<Value, IdentityError> {
        for key in self.ssh_host_keys() {
            step("remove an SSH host key", files::remove(key))?;
        }
        for seed in RANDOM_SEEDS {
            step(
                "remove the stored random seed",
                files::remove(self.path(seed)),
            )?;
        }
        for dir in LEASE_DIRS {
            for lease in list(&self.path(dir))
                .filter(|p| p.extension().is_some_and(|e| e == "leases" || e == "lease"))
            {
                step("remove a DHCP lease", files::remove(lease))?;
            }
        }
        // Empty means "not yet known": a cold start of the sealed disk makes its own.
        step(
            "empty /etc/machine-id",
            files::replace(self.path("/etc/machine-id"), b"", 0o444),
        )?;
        sys::sync_all();
        Ok(Value::Null)
    }

    /// Gives the whole machine its new identity. The seed comes first: the keys depend on it.
    pub fn become_new(&self, identity: &Identity) -> Result<Value, IdentityError> {
        let start = Instant::now();
        let random = step(
            "open /dev/urandom",
            File::options().write(true).open("/dev/urandom"),
        )?;
        step(
            "mix in the random seed",
            sys::credit_seed(random.as_fd(), &identity.seed),
        )?;
        step("set the clock", sys::set_clock(identity.time_unix_ms))?;
        step("set the host name", sys::set_hostname(&identity.hostname))?;
        let key = self.write_files(identity)?;
        Ok(json!({ "took_ms": start.elapsed().as_millis() as u64, "ssh_host_key": key }))
    }

    /// The files of an identity; returns the SSH host key's public half.
    fn write_files(&self, identity: &Identity) -> Result<String, IdentityError> {
        let hostname = &identity.hostname;
        let line = format!("{hostname}\n");
        step(
            "write /etc/hostname",
            files::replace(self.path("/etc/hostname"), line.as_bytes(), 0o644),
        )?;
        let hosts = self.path("/etc/hosts");
        let text = with_own_name(&fs::read_to_string(&hosts).unwrap_or_default(), hostname);
        step(
            "write /etc/hosts",
            files::replace(hosts, text.as_bytes(), 0o644),
        )?;
        let line = format!("{}\n", identity.machine_id);
        step(
            "write /etc/machine-id",
            files::replace(self.path("/etc/machine-id"), line.as_bytes(), 0o444),
        )?;
        // Mostly a link to the file above; where it is a file of its own it must not keep the old one.
        let dbus = self.path("/var/lib/dbus/machine-id");
        if dbus.symlink_metadata().is_ok_and(|m| m.is_file()) {
            step(
                "write /var/lib/dbus/machine-id",
                files::replace(dbus, line.as_bytes(), 0o444),
            )?;
        }
        step("make the SSH host key", self.write_ssh_key(hostname))
    }

    fn write_ssh_key(&self, hostname: &str) -> io::Result<String> {
        let mut key =
            PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(io::Error::other)?;
        key.set_comment(format!("root@{hostname}"));
        let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        let public = key.public_key().to_openssh().map_err(io::Error::other)?;
        if !self.path("/etc/ssh").is_dir() {
            // No SSH server in this image; its key would be of no use.
            return Ok(public);
        }
        for old in self.ssh_host_keys() {
            files::remove(old)?;
        }
        let path = "/etc/ssh/ssh_host_ed25519_key";
        files::replace(self.path(path), private.as_bytes(), 0o600)?;
        files::replace(
            self.path(&format!("{path}.pub")),
            format!("{public}\n").as_bytes(),
            0o644,
        )?;
        Ok(public)
    }

    fn ssh_host_keys(&self) -> impl Iterator<Item = PathBuf> {
        list(&self.path("/etc/ssh")).filter(|path| {
            path.file_name()
                .and_then(|n| n.to_str())
                .is_some_and(|n| n.starts_with("ssh_host_") && n.contains("_key"))
        })
    }
}

fn list(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
}

/// The text of `/etc/hosts` with the line for the machine's own name replaced or added.
fn with_own_name(old: &str, hostname: &str) -> String {
    let own = |line: &&str| line.split_ascii_whitespace().next() != Some("127.0.1.1");
    let mut text: String = old
        .lines()
        .filter(own)
        .flat_map(|line| [line, "\n"])
        .collect();
    if !old
        .lines()
        .any(|line| line.split_ascii_whitespace().next() == Some("127.0.0.1"))
    {
        text.insert_str(0, "127.0.0.1 localhost\n");
    }
    text + "127.0.1.1 " + hostname + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn machine() -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().expect("a directory");
        for sub in ["etc/ssh", "var/lib/systemd", "var/lib/dhcp"] {
            fs::create_dir_all(dir.path().join(sub)).expect("made");
        }
        let machine = Machine {
            root: dir.path().into(),
        };
        (dir, machine)
    }

    fn identity(hostname: &str) -> Identity {
        let machine_id = "0123456789abcdef0123456789abcdef".into();
        Identity {
            hostname: hostname.into(),
            machine_id,
            time_unix_ms: 0,
            seed: [1; 64],
        }
    }

    #[test]
    fn two_forks_share_nothing() {
        let (dir, machine) = machine();
        fs::write(dir.path().join("etc/ssh/ssh_host_rsa_key"), "old").expect("written");
        fs::write(
            dir.path().join("etc/hosts"),
            "127.0.0.1 localhost\n127.0.1.1 golden golden\n::1 x\n",
        )
        .expect("written");
        let first = machine
            .write_files(&identity("seat-1"))
            .expect("an identity");
        let second = machine
            .write_files(&identity("seat-2"))
            .expect("an identity");
        assert_ne!(
            first.split(' ').nth(1),
            second.split(' ').nth(1),
            "the host key is new in every fork"
        );
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).expect(path);
        assert_eq!(read("etc/hostname"), "seat-2\n");
        assert_eq!(
            read("etc/hosts"),
            "127.0.0.1 localhost\n::1 x\n127.0.1.1 seat-2\n"
        );
        assert_eq!(read("etc/machine-id").len(), 33);
        assert_eq!(
            read("etc/ssh/ssh_host_ed25519_key.pub"),
            format!("{second}\n")
        );
        assert!(!dir.path().join("etc/ssh/ssh_host_rsa_key").exists());
        let private = dir.path().join("etc/ssh/ssh_host_ed25519_key");
        assert_eq!(
            fs::metadata(&private).expect("a key").permissions().mode() & 0o777,
            0o600
        );
        let key = PrivateKey::read_openssh_file(&private).expect("a key OpenSSH reads");
        assert_eq!(key.public_key().to_openssh().expect("public"), second);
    }

    #[test]
    fn a_seal_forgets() {
        let (dir, machine) = machine();
        let kept = ["etc/ssh/sshd_config", "var/lib/dhcp/dhclient.conf"];
        let gone = [
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "var/lib/systemd/random-seed",
            "var/lib/dhcp/dhclient.eth0.leases",
        ];
        for path in kept.iter().chain(&gone) {
            fs::write(dir.path().join(path), "x").expect("written");
        }
        machine.prepare_seal().expect("forgets");
        machine.prepare_seal().expect("and again");
        for path in gone {
            assert!(!dir.path().join(path).exists(), "{path}");
        }
        for path in kept {
            assert!(dir.path().join(path).exists(), "{path}");
        }
        assert_eq!(
            fs::read(dir.path().join("etc/machine-id")).expect("there"),
            b""
        );
    }

    #[test]
    fn hosts_without_anything_get_the_basics() {
        assert_eq!(with_own_name("", "a"), "127.0.0.1 localhost\n127.0.1.1 a\n");
    }
}
