//! The system's own tools, started with fixed arguments and told the rest on their input.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// No tool takes that long unless something is very wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the tools are, also for a service whose path is short.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// Why the network is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A tool is not installed.
    #[error(
        "{program} is not here, and the network can't be set up without it: install the package {package}"
    )]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where it comes from on Debian.
        package: &'static str,
    },
    /// This process may not.
    #[error(
        "{what} was not permitted ({said}): courses' networks need root, or CAP_NET_ADMIN; without it leave the network out of the configuration and desktops get QEMU's user network"
    )]
    Rights {
        /// What was tried.
        what: String,
        /// What the tool said.
        said: String,
    },
    /// A tool said no.
    #[error("{what} failed: {said}")]
    Failed {
        /// What was tried.
        what: String,
        /// What the tool said.
        said: String,
    },
    /// A file or process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Shorthand.
pub type Result<T, E = EdgeError> = std::result::Result<T, E>;

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> EdgeError {
    let what = what.into();
    move |source| EdgeError::Io { what, source }
}

/// The machine whose network it is: this one, or a network namespace that stands for one.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    namespace: Option<String>,
}

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        Machine::default()
    }

    /// A namespace that `ip netns` knows.
    pub fn namespace(name: &str) -> Machine {
        Machine {
            namespace: Some(name.to_owned()),
        }
    }

    /// A command in it, without input and with both outputs read.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, program]);
                command
            }
        };
        command
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a tool to its end and gives what it printed.
    pub(crate) async fn run(&self, tool: Tool, args: &[&str], input: &str) -> Result<String> {
        if !tool.is_here() {
            return Err(tool.missing());
        }
        let what = format!("{} {}", tool.program, args.join(" "));
        let mut command = self.command(tool.program);
        command.args(args).stdin(Stdio::piped());
        let mut child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => tool.missing(),
            _ => EdgeError::Io {
                what: format!("starting {}", tool.program),
                source,
            },
        })?;
        let stdin = child.stdin.take();
        let work = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A tool that ended early says itself why.
                    let _ = stdin.write_all(input.as_bytes()).await;
                }
            };
            let ((), out) = tokio::join!(write, child.wait_with_output());
            out
        };
        let out = tokio::time::timeout(PATIENCE, work)
            .await
            .map_err(|_| EdgeError::Failed {
                what: what.clone(),
                said: "it did not end in a minute".into(),
            })?
            .map_err(io(what.clone()))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&out.stderr);
        let said: String = said.trim().chars().take(600).collect();
        if said.contains("Operation not permitted") || said.contains("Permission denied") {
            return Err(EdgeError::Rights { what, said });
        }
        Err(EdgeError::Failed { what, said })
    }

    /// Names of all network devices.
    pub(crate) async fn device_names(&self) -> Result<Vec<String>> {
        let said = self.run(IP, &["-json", "link", "show"], "").await?;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let names = said.as_array().into_iter().flatten();
        Ok(names
            .filter_map(|l| Some(l["ifname"].as_str()?.to_owned()))
            .collect())
    }

    /// Sets a value below `/proc/sys` if it is this one now.
    pub(crate) async fn set_if(&self, key: &str, now: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        match self.run(CAT, &[&path], "").await {
            Ok(text) if text.trim() == now => self.set(key, value).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Sets a value below `/proc/sys` if it is there and another one. Says whether it changed it.
    pub(crate) async fn set(&self, key: &str, value: &str) -> Result<bool> {
        let path = format!("/proc/sys/{key}");
        let Ok(now) = self.run(CAT, &[&path], "").await else {
            return Ok(false);
        };
        if now.trim() == value {
            return Ok(false);
        }
        self.run(TEE, &[&path], value).await?;
        Ok(true)
    }
}

/// A tool and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    package: &'static str,
}

pub(crate) const NFT: Tool = Tool {
    program: "nft",
    package: "nftables",
};
pub(crate) const IP: Tool = Tool {
    program: "ip",
    package: "iproute2",
};
pub(crate) const BRIDGE: Tool = Tool {
    program: "bridge",
    package: "iproute2",
};
pub(crate) const DNSMASQ: Tool = Tool {
    program: "dnsmasq",
    package: "dnsmasq-base",
};
const CAT: Tool = Tool {
    program: "cat",
    package: "coreutils",
};
const TEE: Tool = Tool {
    program: "tee",
    package: "coreutils",
};

impl Tool {
    pub(crate) fn missing(self) -> EdgeError {
        EdgeError::Missing {
            program: self.program,
            package: self.package,
        }
    }

    /// Whether it is installed.
    pub(crate) fn is_here(self) -> bool {
        PATH.split(':')
            .any(|dir| PathBuf::from(dir).join(self.program).exists())
    }
}
