//! `lyceum storage init`: looks at this machine's disks, says what it would make of them, makes
//! the tiers, and writes the storage agent's configuration.
//!
//! It runs on the file server and asks nobody else. Without `--yes` nothing is changed.

use crate::exit::{self, Exit};
use crate::table::{Table, plain};
use clap::{Args, Subcommand, ValueEnum};
use lyceum_disk::DiskError;
use lyceum_disk::inspect::size;
use lyceum_disk::lvm::setup::{self, GROUP_NAME, Plan, Wish};
use lyceum_disk::lvm::{Layout, LvmConfig, Snapshots};
use lyceum_disk::survey::{self, Disk};
use lyceum_storage::StorageConfig;
use lyceum_storage::config::Driver;
use lyceum_storage::nfs::{NfsConfig, NfsMode};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The file server.
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Make the tiers of this machine's disks or folders, and the agent's configuration
    Init(Box<InitArgs>),
}

/// How disks are put together.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LayoutArg {
    /// One after the other
    Linear,
    /// RAID 0: fast; one broken disk loses all
    Striped,
    /// Everything twice
    Mirror,
    /// One of three or more may break
    Raid5,
    /// Two of five or more may break
    Raid6,
    /// Striped mirrors of four or more
    Raid10,
}

impl From<LayoutArg> for Layout {
    fn from(layout: LayoutArg) -> Layout {
        match layout {
            LayoutArg::Linear => Layout::Linear,
            LayoutArg::Striped => Layout::Striped,
            LayoutArg::Mirror => Layout::Mirror,
            LayoutArg::Raid5 => Layout::Raid5,
            LayoutArg::Raid6 => Layout::Raid6,
            LayoutArg::Raid10 => Layout::Raid10,
        }
    }
}

/// How desktops' disks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverArg {
    /// Files over the release's file
    Qcow2,
    /// Thin snapshots of the release's volume
    LvmThin,
    /// Classic snapshots of the release's volume
    LvmClassic,
}

/// What the tiers are made of.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Configuration to write
    #[arg(long, value_name = "FILE", default_value = "/etc/lyceum/storage.toml")]
    pub config: PathBuf,
    /// Address and port for the controller's requests
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8471")]
    pub listen: SocketAddr,
    /// Folder for the agent's identity
    #[arg(long, value_name = "DIR", default_value = "/var/lib/lyceum/storage")]
    pub state_dir: PathBuf,
    /// Where the fast tier is, or is mounted
    #[arg(long, value_name = "DIR", default_value = "/srv/lyceum/fast")]
    pub fast_dir: PathBuf,
    /// Where the slow tier is, or is mounted
    #[arg(long, value_name = "DIR", default_value = "/srv/lyceum/slow")]
    pub slow_dir: PathBuf,
    /// Use the two folders as they are, and no disks
    #[arg(long, conflicts_with_all = ["fast", "slow", "erase"])]
    pub folders: bool,
    /// Disks of the fast tier; default: all empty SSDs
    #[arg(long, value_name = "DISK", value_delimiter = ',')]
    pub fast: Vec<PathBuf>,
    /// Disks of the slow tier; default: all empty HDDs
    #[arg(long, value_name = "DISK", value_delimiter = ',')]
    pub slow: Vec<PathBuf>,
    /// How the fast disks are put together
    #[arg(long, default_value = "linear")]
    pub fast_layout: LayoutArg,
    /// How the slow disks are put together
    #[arg(long, default_value = "linear")]
    pub slow_layout: LayoutArg,
    /// How desktops' disks are kept
    #[arg(long, default_value = "qcow2")]
    pub driver: DriverArg,
    /// Erase this disk although it holds data
    #[arg(long, value_name = "DISK", value_delimiter = ',')]
    pub erase: Vec<PathBuf>,
    /// Name of the volume group
    #[arg(long, value_name = "NAME", default_value = GROUP_NAME)]
    pub group: String,
    /// This machine's addresses on the disk network: show the tiers there by NFS
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        requires = "hosts"
    )]
    pub disk_network: Vec<IpAddr>,
    /// Who may mount the tiers: addresses, or networks as 10.10.0.0/24
    #[arg(
        long,
        value_name = "NETWORK",
        value_delimiter = ',',
        requires = "disk_network"
    )]
    pub hosts: Vec<String>,
    /// Bytes that are kept free in every snapshot's store, or in the pool [default: 2 GiB]
    #[arg(long, value_name = "MIB")]
    pub headroom_mib: Option<u64>,
    /// Do it, and do not only say what would be done
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command; blocks.
pub fn run(command: StorageCommand, json: bool) -> anyhow::Result<()> {
    match command {
        StorageCommand::Init(args) => init(&args, json),
    }
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Shown<'a> {
    disks: &'a [Disk],
    plan: Option<&'a Plan>,
    config: &'a StorageConfig,
    done: bool,
}

fn refused(error: DiskError) -> anyhow::Error {
    Exit::coded(exit::REFUSED, error.to_string())
}

fn init(args: &InitArgs, json: bool) -> anyhow::Result<()> {
    if args.config.exists() {
        return Err(Exit::coded(
            exit::REFUSED,
            format!(
                "{} exists: this file server is set up already. To begin anew, move that file away; disks that hold tiers are then still refused until they are named with --erase",
                args.config.display()
            ),
        ));
    }
    let mut config =
        StorageConfig::new(args.listen, &args.state_dir, &args.fast_dir, &args.slow_dir);
    if !args.disk_network.is_empty() {
        let nfs = NfsConfig {
            listen: args.disk_network.clone(),
            clients: args.hosts.clone(),
            mode: NfsMode::Safe,
            threads: 32,
        };
        nfs.check().map_err(|e| Exit::usage(e.to_string()))?;
        config.nfs = Some(nfs);
    }
    if args.folders {
        if args.driver != DriverArg::Qcow2 {
            return Err(Exit::usage(
                "folders can't hold snapshots: choose disks, or --driver qcow2",
            ));
        }
        let folders = [&args.fast_dir, &args.slow_dir];
        return finish(args, json, &[], None, config, |_| {
            for folder in folders {
                std::fs::create_dir_all(folder)?;
            }
            Ok(())
        });
    }
    let disks = survey::disks().map_err(refused)?;
    let proposal = survey::propose(&disks);
    let or = |given: &[PathBuf], found: Vec<PathBuf>| match given {
        [] => found,
        given => given.to_vec(),
    };
    let wish = Wish {
        group: args.group.clone(),
        fast: or(&args.fast, proposal.fast),
        slow: or(&args.slow, proposal.slow),
        fast_layout: args.fast_layout.into(),
        slow_layout: args.slow_layout.into(),
        snapshots: match args.driver {
            DriverArg::Qcow2 => None,
            DriverArg::LvmThin => Some(Snapshots::Thin),
            DriverArg::LvmClassic => Some(Snapshots::Classic),
        },
        erase: args.erase.clone(),
    };
    if !json {
        println!("{}", table(&disks, &wish));
    }
    let plan = setup::plan(&wish, &disks).map_err(refused)?;
    if wish.snapshots.is_some() {
        config.driver = Driver::Lvm;
    }
    let lvm = LvmConfig {
        fast_layout: wish.fast_layout,
        slow_layout: wish.slow_layout,
        headroom_bytes: args
            .headroom_mib
            .map_or(LvmConfig::new("").headroom_bytes, |mib| mib << 20),
        snapshots: wish.snapshots.unwrap_or_default(),
        ..LvmConfig::new("known when the group is made")
    };
    config.lvm = Some(lvm);
    finish(args, json, &disks, Some(&plan), config, |config| {
        let group = setup::apply(&wish, &plan, &mut |what| eprintln!("{what}"))?;
        if let Some(lvm) = &mut config.lvm {
            lvm.vg_uuid = group.uuid().to_owned();
        }
        setup::mount_tiers(&group, &args.fast_dir, &args.slow_dir, Default::default())?;
        Ok(())
    })
}

fn finish(
    args: &InitArgs,
    json: bool,
    disks: &[Disk],
    plan: Option<&Plan>,
    mut config: StorageConfig,
    apply: impl FnOnce(&mut StorageConfig) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if !json && let Some(plan) = plan {
        println!("{}", told(plan));
    }
    if args.yes {
        apply(&mut config)?;
        write(&args.config, &config)?;
    }
    if json {
        let shown = Shown {
            disks,
            plan,
            config: &config,
            done: args.yes,
        };
        crate::context::print(&serde_json::to_string_pretty(&shown)?)?;
    } else if args.yes {
        println!(
            "done. On the controller:  lyceum host token storage --kind storage\nthen here:          lyceum storage --config {} --join TOKEN",
            args.config.display()
        );
    } else {
        println!("nothing was changed; to do it, say the same with --yes");
    }
    Ok(())
}

fn write(path: &Path, config: &StorageConfig) -> anyhow::Result<()> {
    let text = toml::to_string(config)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    lyceum_disk::files::write_atomic(path, text.as_bytes(), 0o600).map_err(refused)?;
    Ok(())
}

fn table(disks: &[Disk], wish: &Wish) -> String {
    let mut table = Table::new(&["DISK", "KIND", "SIZE", "MODEL", "USE"]);
    for disk in disks {
        let tier = if wish.fast.contains(&disk.device) {
            "fast tier"
        } else if wish.slow.contains(&disk.device) {
            "slow tier"
        } else if disk.is_empty() {
            "not used"
        } else {
            "left alone"
        };
        let holds = if disk.is_empty() {
            tier.to_owned()
        } else {
            format!("{tier}: {}", disk.holds.join("; "))
        };
        table.row([
            disk.device.display().to_string(),
            if disk.rotational { "HDD" } else { "SSD" }.to_owned(),
            size(disk.bytes),
            plain(&disk.model),
            plain(&holds),
        ]);
    }
    table.render()
}

fn told(plan: &Plan) -> String {
    let mut text = String::new();
    for warning in &plan.warnings {
        text.push_str(&format!("beware: {}\n", plain(warning)));
    }
    for step in &plan.steps {
        text.push_str(&format!(
            "{}\n    {}\n",
            plain(&step.why),
            plain(&step.command.join(" "))
        ));
    }
    text.push_str("then a file system for each tier, mounted, and the configuration\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Just {
        #[command(flatten)]
        args: InitArgs,
    }

    fn parse(words: &[&str]) -> InitArgs {
        Just::parse_from([&["init"], words].concat()).args
    }

    #[test]
    fn folders_become_tiers_only_with_yes_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (config, fast, slow, state) = (at("etc/s.toml"), at("fast"), at("slow"), at("state"));
        let mut words = vec![
            "--folders",
            "--config",
            &config,
            "--fast-dir",
            &fast,
            "--slow-dir",
            &slow,
            "--state-dir",
            &state,
        ];
        init(&parse(&words), false).unwrap();
        assert!(!Path::new(&config).exists() && !Path::new(&fast).exists());
        words.push("--yes");
        init(&parse(&words), false).unwrap();
        let written: StorageConfig =
            toml::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
        assert_eq!(written.fast_dir, PathBuf::from(&fast));
        assert!(written.lvm.is_none() && written.nfs.is_none());
        assert!(init(&parse(&words), false).is_err(), "done twice");
        words.extend(["--driver", "lvm-thin"]);
        std::fs::remove_file(&config).unwrap();
        assert!(init(&parse(&words), false).is_err(), "snapshots in folders");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut config = StorageConfig::new("127.0.0.1:1".parse().unwrap(), "/s", "/f", "/w");
        config.lvm = Some(LvmConfig::new("u-u"));
        config.driver = Driver::Lvm;
        config.nfs = Some(NfsConfig {
            listen: vec!["127.0.0.1".parse().unwrap()],
            clients: vec!["10.0.0.0/24".into()],
            mode: NfsMode::NfsAsync,
            threads: 4,
        });
        let again: StorageConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }
}
