//! Which measurements show whether a change helps.

use super::edge::Known;
use crate::bench::tools::{self, File, IPERF_PORT, Tcp, Use};
use lyceum_tune::Experiment;
use lyceum_tune::machine::Machine;
use lyceum_tune::verdict::Measured;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How it is measured.
#[derive(Debug, Clone)]
pub struct Measures {
    /// Seconds of each.
    pub seconds: u32,
    /// How often, before and after each.
    pub rounds: u32,
    /// Size of the files, bytes.
    pub size: u64,
    /// Port of iperf3.
    pub port: u16,
    /// Through the page cache.
    pub buffered: bool,
}

impl Default for Measures {
    fn default() -> Measures {
        Measures {
            seconds: 5,
            rounds: 3,
            size: 1 << 30,
            port: IPERF_PORT,
            buffered: false,
        }
    }
}

/// One figure.
#[derive(Debug, Clone)]
pub enum Probe {
    /// TCP.
    Tcp {
        /// With whom.
        peer: IpAddr,
        /// Which way.
        receive: bool,
    },
    /// A folder.
    Folder {
        /// Where.
        dir: PathBuf,
        /// What.
        what: Use,
        /// Bytes at once.
        block: u64,
        /// Past the page cache; read-ahead, for one, is only in it.
        direct: bool,
    },
    /// Flushed writes in one folder while another is flooded.
    Beside {
        /// Where they are flushed.
        dir: PathBuf,
        /// What is flooded.
        flooded: PathBuf,
    },
}

/// What shows whether changes of an experiment help; in words, why it can't be measured here.
pub fn probes(
    experiment: Experiment,
    known: &Known,
    machine: &Machine,
) -> Result<Vec<Probe>, String> {
    let folder = |dir: &Path| {
        let probe = |what, block, direct| Probe::Folder {
            dir: dir.to_owned(),
            what,
            block,
            direct,
        };
        vec![
            probe(Use::Read, 1 << 20, false),
            probe(Use::Write, 1 << 20, true),
            probe(Use::Flushed, 4096, true),
        ]
    };
    let tier = |dir: &Option<PathBuf>, name: &str| {
        dir.clone()
            .ok_or_else(|| format!("where the {name} tier is, is not known: give --{name} DIR"))
    };
    match experiment {
        Experiment::Network => {
            if known.peers.is_empty() {
                return Err("another machine must take part: run `lyceum bench net --serve ADDRESS` there, and give --peer ADDRESS".into());
            }
            let both = |peer: &IpAddr| {
                [false, true].map(|receive| Probe::Tcp {
                    peer: *peer,
                    receive,
                })
            };
            Ok(known.peers.iter().flat_map(both).collect())
        }
        Experiment::Fast => Ok(folder(&tier(&known.fast, "fast")?)),
        Experiment::Slow => Ok(folder(&tier(&known.slow, "slow")?)),
        Experiment::Mount => Ok(machine
            .mounts
            .iter()
            .flat_map(|m| folder(Path::new(&m.at)))
            .collect()),
        Experiment::WriteBack => Ok(vec![Probe::Beside {
            dir: tier(&known.fast, "fast")?,
            flooded: tier(&known.slow, "slow")?,
        }]),
        Experiment::Elsewhere => Err(
            "only the hosts notice it: measure there with `lyceum bench nfs` before and after, and set it with --unmeasured".into(),
        ),
    }
}

impl Probe {
    /// What is measured, empty still.
    pub fn figure(&self) -> Measured {
        let (what, unit) = match self {
            Probe::Tcp { peer, receive } => {
                let way = if *receive { "from" } else { "to" };
                (format!("TCP {way} {peer}"), "Mbit/s")
            }
            Probe::Folder { dir, what, .. } => {
                let word = match what {
                    Use::Read => "read",
                    Use::Write => "write",
                    Use::Flushed => "write with flushes",
                };
                (format!("{word} in {}", dir.display()), "MiB/s")
            }
            Probe::Beside { dir, flooded } => (
                format!(
                    "write with flushes in {} while {} is flooded",
                    dir.display(),
                    flooded.display()
                ),
                "MiB/s",
            ),
        };
        Measured {
            what,
            unit: unit.into(),
            ..Measured::default()
        }
    }

    /// Measures it once.
    pub async fn measure(&self, how: &Measures) -> anyhow::Result<f64> {
        let file = |dir: &Path, what, block, direct: bool| File {
            dir: dir.to_owned(),
            what,
            block,
            size: how.size,
            seconds: how.seconds,
            direct: direct && !how.buffered,
        };
        match self {
            Probe::Tcp { peer, receive } => {
                let wanted = Tcp {
                    peer: *peer,
                    port: how.port,
                    seconds: how.seconds,
                    streams: 1,
                    receive: *receive,
                };
                Ok(tools::tcp(&wanted).await?.mbits)
            }
            Probe::Folder {
                dir,
                what,
                block,
                direct,
            } => Ok(tools::file(&file(dir, *what, *block, *direct)).await?.mib_s),
            Probe::Beside { dir, flooded } => {
                let flushed = file(dir, Use::Flushed, 4096, true);
                // It must be there before the other begins and after it has ended.
                let mut flood = file(flooded, Use::Write, 1 << 20, false);
                flood.seconds += 2;
                let (flushed, flood) = tokio::join!(tools::file(&flushed), tools::file(&flood));
                flood?;
                Ok(flushed?.mib_s)
            }
        }
    }
}
