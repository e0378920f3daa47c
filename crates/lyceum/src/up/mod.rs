//! `lyceum up`: the whole classroom on one machine.
//!
//! A small supervisor. It starts the parts as child processes (the same program with another
//! command), lets the agents join with one-time tokens through the controller's local socket,
//! makes a first image and course through the API, and stops everything in order. It knows
//! nothing that the parts don't tell through their interfaces, and keeps nothing but addresses.

mod child;
mod first;
mod layout;
mod limit;
mod lock;
mod log;
mod machines;
mod power;
mod stop;

use crate::client::Client;
use crate::context::{Context, print};
use crate::exit::{self, Exit};
use crate::parts::{ControllerFile, HostFile};
use crate::place::{self, Place};
use child::{Part, Running};
use layout::{Addresses, Layout, host_name};
use lyceum_api::hosts::{AgentKind, Health, JoinToken, JoinTokenCreate};
use lyceum_host::HostConfig;
use lyceum_qemu::{AcceleratorChoice, QemuConfig};
use lyceum_storage::StorageConfig;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long the parts may take until they are all there.
const PARTS_PATIENCE: Duration = Duration::from_secs(60);
/// How long ports of a killed classroom's parts are waited for.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// How to run the classroom.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Where the page and the API are served [default: 127.0.0.1:8470]
    #[arg(long, value_name = "ADDRESS:PORT")]
    page: Option<SocketAddr>,
    /// Port of the parts among each other, each on a loopback address of its own
    #[arg(long, value_name = "PORT", default_value_t = layout::AGENT_PORT, conflicts_with = "free_ports")]
    agents_port: u16,
    /// Choose free ports for everything at the first start
    #[arg(long)]
    free_ports: bool,
    /// How many hosts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    hosts: u8,
    /// A disk image to begin with: imported and sealed as the image Demo, with a sample course
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Size of the machine that the image is sealed with: vCPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    image_vcpus: u16,
    /// The same: memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 768)]
    image_memory: u32,
    /// Don't suspend desktops at the end; they run on and are found again at the next start
    #[arg(long)]
    leave_running: bool,
    /// Memory for the desktops of all hosts together [default: this machine's less 2 GiB]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..))]
    memory: Option<u64>,
    /// How many of this machine's processors each host may use with all its desktops, 0.05 for a twentieth of one
    /// [default: all]; needs root
    #[arg(long, value_name = "N", value_parser = processors)]
    host_cpus: Option<f64>,
    /// What guests run on: auto tries KVM with a guest of its own and takes software emulation (tcg)
    /// where that fails
    #[arg(long, value_name = "WHICH", env = "LYCEUM_ACCELERATOR", default_value = "auto",
          value_parser = accelerator, hide_env_values = true)]
    accelerator: AcceleratorChoice,
    /// Machines are simulated: a classroom without guests, to try things out
    #[arg(long)]
    simulated: bool,
}

fn processors(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.05..=1024.0).contains(&n) => Ok(n),
        _ => Err("it is a number from 0.05 to 1024".to_owned()),
    }
}

fn accelerator(text: &str) -> Result<AcceleratorChoice, String> {
    match text {
        "auto" => Ok(AcceleratorChoice::Auto),
        "kvm" => Ok(AcceleratorChoice::Kvm),
        "tcg" => Ok(AcceleratorChoice::Tcg),
        _ => Err("it is one of auto, kvm, tcg".to_owned()),
    }
}

/// The page's address of the classroom whose controller has this socket.
pub fn page_of(socket: &Path) -> Option<String> {
    // STATE/controller/controller.sock
    let layout = Layout {
        state: socket.parent()?.parent()?.to_owned(),
    };
    let addresses = layout.load_addresses().ok()??;
    Some(page_url(addresses.page))
}

/// The addresses of the classroom in this directory, or those that it would get.
pub fn addresses_of(state: &Path) -> Addresses {
    let layout = Layout {
        state: state.to_owned(),
    };
    match layout.load_addresses() {
        Ok(Some(known)) => known,
        Ok(None) | Err(_) => Addresses::usual(layout::PAGE, layout::AGENT_PORT, 3),
    }
}

fn page_url(page: SocketAddr) -> String {
    // Off loopback the controller serves TLS with a certificate of its own CA.
    let scheme = if page.ip().is_loopback() {
        "http"
    } else {
        "https"
    };
    format!("{scheme}://{page}")
}

/// Runs the classroom until it is told to stop.
pub async fn run(state: Option<&Path>, args: UpArgs) -> anyhow::Result<()> {
    // From the first moment on: Ctrl-C must not leave parts behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told_to_stop = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };

    let in_the_way = crate::doctor::before_start().await;
    if let Some(finding) = in_the_way.first()
        && !args.simulated
    {
        let cure = finding.cure.as_deref().unwrap_or("see: lyceum doctor");
        return Err(Exit::coded(
            exit::FAILED,
            format!("{}; {cure}", finding.found),
        ));
    }
    let layout = Layout::make(&state.map_or_else(place::default_state_dir, Path::to_owned))?;
    let _lock = lock::take(&layout.state)?;
    let addresses = addresses(&layout, &args)?;
    if let Some((what, address, error)) = addresses.taken(PORT_PATIENCE).await {
        let cure = match (error.kind(), what.as_str()) {
            (std::io::ErrorKind::AddrInUse, "the page") => {
                "another program has it; choose another with --page ADDRESS:PORT"
            }
            (std::io::ErrorKind::AddrInUse, _) => {
                "another program has it; end that, or start with another state directory and --agents-port PORT or --free-ports"
            }
            _ => "choose an address of this machine",
        };
        return Err(Exit::coded(
            exit::FAILED,
            format!("{address} can't be used for {what}: {error}; {cure}"),
        ));
    }

    let mut parts = Vec::new();
    let end = tokio::select! {
        begun = begin(&layout, &addresses, &args, &mut parts) => match begun {
            Ok(()) => {
                told_to_stop().await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        () = told_to_stop() => Ok(()),
    };

    print("stopping\n").ok();
    if end.is_ok() && !args.leave_running {
        let context = local(&layout)?;
        tokio::select! {
            () = stop::desktops(&context) => {}
            // Asked a second time: what runs is left running, and is found again.
            () = told_to_stop() => eprintln!("not waiting any longer: desktops that still run are left running"),
        }
    }
    stop_parts(parts).await;
    if args.host_cpus.is_some() {
        limit::remove(&layout);
    }
    end
}

/// Hosts first, so that the controller hears their last words; then storage; the controller last.
async fn stop_parts(mut parts: Vec<Running>) {
    parts.sort_by_key(|part| match part.name() {
        "controller" => 2,
        "storage" => 1,
        _ => 0,
    });
    let (agents, rest): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .partition(|part| part.name().starts_with("host-"));
    futures::future::join_all(agents.into_iter().map(Running::stop)).await;
    for part in rest {
        part.stop().await;
    }
}

/// The addresses of the first start, else new ones. The page's may change from start to start.
fn addresses(layout: &Layout, args: &UpArgs) -> anyhow::Result<Addresses> {
    let known = layout.load_addresses()?;
    let addresses = match known.clone() {
        Some(mut known) => {
            if let Some(page) = args.page {
                known.page = page;
            }
            known
        }
        None => {
            let usual = Addresses::usual(
                args.page.unwrap_or(layout::PAGE),
                args.agents_port,
                args.hosts,
            );
            match args.free_ports {
                true => usual.with_free_ports().map_err(|e| {
                    Exit::coded(exit::FAILED, format!("no free port can be had: {e}"))
                })?,
                false => usual,
            }
        }
    };
    if known.as_ref() != Some(&addresses) {
        layout.save_addresses(&addresses)?;
    }
    Ok(addresses)
}

fn local(layout: &Layout) -> anyhow::Result<Context> {
    Ok(Context {
        client: Client::new(&Place::Socket(
            layout.path("controller").join(place::SOCKET),
        ))?,
        json: false,
        no_wait: false,
    })
}

/// Starts everything, up to the line `ready:`.
async fn begin(
    layout: &Layout,
    addresses: &Addresses,
    args: &UpArgs,
    parts: &mut Vec<Running>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let part = |name: &str, command: &str, config: PathBuf, join: Option<String>| Part {
        name: name.to_owned(),
        args: vec![
            command.to_owned(),
            "--config".to_owned(),
            config.display().to_string(),
        ],
        join,
        log: layout.path("logs").join(format!("{name}.log")),
        off_flag: name.starts_with("host-").then(|| power::flag(layout, name)),
        limit: None,
    };
    power::all_on(layout)?;

    let controller = ControllerFile {
        state_dir: layout.path("controller"),
        listen: addresses.page,
        agent_listen: addresses.controller,
        store_url: None,
        names: Vec::new(),
        agent_url: None,
        native_listen: Some(addresses.native),
        spice_listen: Some(addresses.spice),
        network: None,
        trusted_proxies: Vec::new(),
        console: None,
        tls: None,
        power_commands: power::commands(layout),
    };
    let config = write_config(layout, "controller", &controller)?;
    parts.push(Running::start(part(
        "controller",
        "controller",
        config,
        None,
    ))?);
    let context = local(layout)?;
    wait_for(&context, &parts[0], "the controller", |_| true).await?;

    let machines = machines::choose(layout, args.accelerator).await;
    let storage = StorageConfig {
        disk_owner: machines.owner,
        ..StorageConfig::new(
            addresses.storage,
            layout.path("storage"),
            layout.path("fast"),
            layout.path("slow"),
        )
    };
    let config = write_config(layout, "storage", &storage)?;
    let join = token(&context, AgentKind::Storage, "storage", &storage.state_dir).await?;
    parts.push(Running::start(part("storage", "storage", config, join))?);
    // Hosts refuse to work with tiers that storage has not marked as its own.
    wait_for(&context, &parts[0], "storage", |health| {
        health.storage_online
    })
    .await?;

    let run = layout.run_dir()?;
    for (n, address) in addresses.hosts.iter().enumerate() {
        let name = host_name(n);
        let file = HostFile {
            host: HostConfig {
                memory_mib: Some(share_of_memory(args.memory, addresses.hosts.len())),
                starts: Some(share_of_starts(addresses.hosts.len())),
                user: machines.user.clone(),
                network: None,
                simulated: args.simulated,
                power_off: Some(power::off(layout, &name)),
                ..plain_host(&name, *address, layout, &run.join((n + 1).to_string()))?
            },
            qemu: QemuConfig {
                accelerator: machines.accelerator,
                ..QemuConfig::default()
            },
            nfs: None,
        };
        let config = write_config(layout, &name, &file)?;
        let join = token(&context, AgentKind::Host, &name, &file.host.state_dir).await?;
        let limit = match args.host_cpus {
            Some(cpus) => Some(limit::make(layout, &name, cpus)?),
            None => None,
        };
        let part = Part {
            limit,
            ..part(&name, "host", config, join)
        };
        parts.push(Running::start(part)?);
    }
    let hosts = addresses.hosts.len() as u32;
    wait_for(&context, &parts[0], "the hosts and storage", |health| {
        health.storage_online && health.hosts_online >= hosts
    })
    .await?;
    print(&format!(
        "controller, storage and {hosts} hosts are up ({:.1} s); logs are in {}\n",
        began.elapsed().as_secs_f64(),
        layout.path("logs").display()
    ))?;

    power::set_up(&context, addresses.hosts.len()).await?;
    if let Some(image) = &args.image {
        let size = lyceum_model::MachineSize {
            vcpus: args.image_vcpus,
            memory_mib: args.image_memory,
        };
        first::content(&context, layout, image, size).await?;
    }
    let url = page_url(addresses.page);
    let way_in = first::way_in(layout, &url)?;
    print(&format!("ready: {url}\n"))?;
    match way_in {
        Some(link) => print(&format!(
            "sign in for the first time, once, and set a password: {link}\n"
        )),
        None => print("sign in with your own name and password\n"),
    }?;
    print("Ctrl-C stops it; running desktops are suspended then\n")
}

/// A host agent's configuration with everything at its default that has one.
fn plain_host(
    name: &str,
    listen: SocketAddr,
    layout: &Layout,
    run_dir: &Path,
) -> anyhow::Result<HostConfig> {
    let required = serde_json::json!({
        "name": name,
        "listen": listen,
        "state_dir": layout.path(name),
        "run_dir": run_dir,
        "fast": layout.path("fast"),
        "slow": layout.path("slow"),
    });
    Ok(serde_json::from_value(required)?)
}

/// Each host's part of what was given, or of the machine's memory less what everything else needs; MiB.
fn share_of_memory(given: Option<u64>, hosts: usize) -> u64 {
    let hosts = hosts.max(1) as u64;
    match given {
        Some(given) => given / hosts,
        None => {
            let total = crate::doctor::memory_mib().map_or(4096, |memory| memory.total);
            (total.saturating_sub(2048) / hosts).max(512)
        }
    }
}

/// Starts at once of each host. The hosts share this machine's processors, and forks that only
/// wait for each other make everybody wait for the last.
fn share_of_starts(hosts: usize) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cpus).div_ceil(hosts.max(1))
}

fn write_config(
    layout: &Layout,
    name: &str,
    config: &impl serde::Serialize,
) -> anyhow::Result<PathBuf> {
    let path = layout.path(format!("{name}.toml"));
    let text = format!(
        "# Written by `lyceum up` at every start.\n{}",
        toml::to_string(config)?
    );
    lyceum_wire::write_atomically(&path, text.as_bytes(), 0o600).map_err(|e| {
        Exit::coded(
            exit::FAILED,
            format!("{} can't be written: {e}", path.display()),
        )
    })?;
    Ok(path)
}

/// A join token, for an agent that has not joined yet.
async fn token(
    context: &Context,
    kind: AgentKind,
    name: &str,
    state: &Path,
) -> anyhow::Result<Option<String>> {
    if lyceum_wire::Identity::load(state)?.is_some() {
        return Ok(None);
    }
    let name = name
        .parse()
        .map_err(|e| Exit::coded(exit::FAILED, format!("{e}")))?;
    let token: JoinToken = context
        .client
        .post("join-tokens", &JoinTokenCreate { kind, name })
        .await?;
    Ok(Some(token.token))
}

/// Asks for the classroom's health until it is as wanted.
async fn wait_for(
    context: &Context,
    controller: &Running,
    what: &str,
    wanted: impl Fn(&Health) -> bool,
) -> anyhow::Result<()> {
    let until = Instant::now() + PARTS_PATIENCE;
    loop {
        let health: Result<Health, _> = context.client.get("health").await;
        match health {
            Ok(health) if wanted(&health) => return Ok(()),
            Ok(_) | Err(_) if Instant::now() < until && controller.starts() < 4 => {}
            Ok(_) => {
                return Err(Exit::coded(
                    exit::FAILED,
                    format!(
                        "{what} did not come up; their words are above and in the logs. lyceum doctor finds common causes"
                    ),
                ));
            }
            Err(error) => {
                return Err(Exit::coded(
                    exit::FAILED,
                    format!(
                        "{what} did not come up ({error}); its words are above and in its log. lyceum doctor finds common causes"
                    ),
                ));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
