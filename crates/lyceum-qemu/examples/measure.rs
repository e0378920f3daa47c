//! Measures the engine on a real image: seal, fork, suspend, resume, hand-out.
//!
//! `cargo run --release -p lyceum-qemu --example measure -- IMAGE.qcow2 [MEMORY_MIB] [FORKS] [DIR]`
//!
//! Numbers go to stdout, one line each. With DIR the sealed release is kept there and used again.

use lyceum_hypervisor::*;
use lyceum_model::*;
use lyceum_qemu::{AcceleratorChoice, QemuConfig, QemuHypervisor};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Bench {
    hypervisor: QemuHypervisor,
    dir: PathBuf,
    size: MachineSize,
    disk: PathBuf,
    sealed: SealedFiles,
}

impl Bench {
    fn request(
        &self,
        n: usize,
        from: StartFrom,
        top: PathBuf,
        base: Option<PathBuf>,
    ) -> Result<StartRequest> {
        let (high, low) = (n / 200, n % 200 + 1);
        Ok(StartRequest {
            desktop: format!("m{n}").parse()?,
            generation: Generation(1),
            run_dir: self.dir.join(format!("run{n}")),
            size: self.size,
            disk: DiskFiles {
                top,
                base,
                release: None,
                durability: Durability::Throwaway,
                cdrom: None,
            },
            from,
            vm_generation_id: uuid::Uuid::new_v4(),
            identity: Some(Identity {
                hostname: Hostname::from_text("desk", &n.to_string()),
                machine_id: uuid::Uuid::new_v4().simple().to_string(),
            }),
            nic: Some(Nic {
                mac: format!("52:54:00:00:{high:02x}:{low:02x}"),
                link: NicLink::User {
                    network: format!("10.77.{low}.0/24"),
                    address: [10, 77, low as u8, 100].into(),
                    outside: false,
                },
            }),
            spice: false,
            ready_timeout_ms: 300_000,
        })
    }

    fn fork_request(&self, n: usize) -> Result<StartRequest> {
        let top = self.dir.join(format!("o{n}.qcow2"));
        let options = format!(
            "extended_l2=on,cluster_size=128k,backing_fmt=qcow2,backing_file={}",
            self.disk.display()
        );
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o", &options])
            .arg(&top)
            .status()?;
        if !made.success() {
            return Err("qemu-img failed".into());
        }
        self.request(
            n,
            StartFrom::Fork {
                sealed: self.sealed.clone(),
            },
            top,
            Some(self.disk.clone()),
        )
    }

    async fn start(&self, request: StartRequest) -> Result<(Arc<dyn Instance>, Usable)> {
        let instance = self.hypervisor.start(request).await?;
        let mut watch = instance.watch();
        let state = watch
            .wait_for(|s| !matches!(s, InstanceState::Starting { .. }))
            .await?
            .clone();
        match state {
            InstanceState::Running { usable } => Ok((instance, usable)),
            other => Err(format!("{other:?}").into()),
        }
    }

    async fn seal(&self, image: &Path) -> Result<()> {
        std::fs::copy(image, &self.disk)?;
        let from = StartFrom::ColdForSeal {
            ram: self.sealed.ram.clone(),
            device_state: self.sealed.device_state.clone(),
        };
        let mut request = self.request(0, from, self.disk.clone(), None)?;
        (request.nic, request.identity) = (None, None);
        let began = Instant::now();
        let (instance, _) = self.start(request).await?;
        println!("boot until ready: {:.1} s", began.elapsed().as_secs_f64());
        let began = Instant::now();
        instance.seal().await?;
        println!("seal: {:.1} s", began.elapsed().as_secs_f64());
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// User and system CPU seconds of ended and running processes of the whole host, without idle.
fn busy_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    fields.iter().take(3).sum::<f64>() / 100.0
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let image = PathBuf::from(args.next().ok_or("name an image")?);
    let memory_mib = args.next().map_or(Ok(768), |m| m.parse())?;
    let forks: usize = args.next().map_or(Ok(20), |m| m.parse())?;
    let kept = args.next().map(PathBuf::from);
    let dir = std::env::temp_dir().join(format!("lyceum-measure-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let release = kept.clone().unwrap_or_else(|| dir.clone());
    std::fs::create_dir_all(&release)?;
    let root = nix::unistd::geteuid().is_root();
    let bench = Bench {
        hypervisor: QemuHypervisor::new(QemuConfig {
            accelerator: AcceleratorChoice::Tcg,
            user: root.then(|| "nobody".to_owned()),
            ..QemuConfig::default()
        })?,
        dir: dir.clone(),
        size: MachineSize {
            vcpus: 1,
            memory_mib,
        },
        disk: release.join("disk.qcow2"),
        sealed: SealedFiles {
            release: "measured".parse()?,
            ram: release.join("ram"),
            device_state: release.join("device-state"),
        },
    };
    let result = measure(&bench, &image, forks).await;
    std::fs::remove_dir_all(&dir)?;
    result
}

async fn measure(bench: &Bench, image: &Path, forks: usize) -> Result<()> {
    if !bench.sealed.device_state.exists() {
        bench.seal(image).await?;
    }
    let mut machines = Vec::new();
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    let (all, busy) = (Instant::now(), busy_seconds());
    for n in 1..=forks {
        let request = bench.fork_request(n)?;
        let began = Instant::now();
        let (instance, usable) = bench.start(request).await?;
        times.push(began.elapsed().as_secs_f64());
        cpu.push(instance.usage().await?.cpu_ms);
        if n == 1 || n == forks {
            println!(
                "fork {n}: {:.2} s, {usable:?}",
                began.elapsed().as_secs_f64()
            );
        }
        machines.push(instance);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{forks} forks one after another: {:.1} s, median {:.2} s, longest {:.2} s, host CPU {:.2} s per fork",
        all.elapsed().as_secs_f64(),
        times[times.len() / 2],
        times[times.len() - 1],
        (busy_seconds() - busy) / forks as f64
    );
    cpu.sort_unstable();
    println!(
        "CPU time of QEMU until usable: median {} ms",
        cpu[cpu.len() / 2]
    );
    let busy = busy_seconds();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "idle CPU of {forks}: {:.0} % of one core",
        (busy_seconds() - busy) * 20.0
    );
    let mut pss = 0;
    for machine in &machines {
        pss += machine.usage().await?.pss_kib;
    }
    let nominal = forks as u64 * u64::from(bench.size.memory_mib) * 1024;
    println!(
        "Pss: {} MiB, {:.1} % of nominal",
        pss / 1024,
        pss as f64 * 100.0 / nominal as f64
    );

    let mut times = Vec::new();
    for _ in 0..5 {
        let Some(machine) = machines.pop() else { break };
        let began = Instant::now();
        let n = machines.len() + 1;
        machine.end(Duration::ZERO).await?;
        let (machine, _) = bench.start(bench.fork_request(n)?).await?;
        times.push(began.elapsed().as_secs_f64());
        machines.push(machine);
    }
    println!("reset while {} run: {times:.2?} s", machines.len());

    let Some(machine) = machines.pop() else {
        return Ok(());
    };
    let request = machine.request();
    let delta = bench.dir.join("delta");
    let began = Instant::now();
    let summary = machine.suspend(&delta).await?;
    let bytes = summary.memory_bytes + summary.device_bytes;
    println!(
        "suspend: {:.2} s, stood still {} ms, {:.1} MiB pages + {:.1} MiB devices ({:.1} % of memory), overlay {:.1} MiB",
        began.elapsed().as_secs_f64(),
        summary.stand_still_ms,
        mib(summary.memory_bytes),
        mib(summary.device_bytes),
        bytes as f64 * 100.0 / (u64::from(bench.size.memory_mib) << 20) as f64,
        mib(summary.overlay_bytes)
    );
    let from = StartFrom::Resume {
        sealed: bench.sealed.clone(),
        delta: delta.clone(),
    };
    let began = Instant::now();
    let (machine, usable) = bench.start(StartRequest { from, ..request }).await?;
    println!("resume: {:.2} s, {usable:?}", began.elapsed().as_secs_f64());

    let lesson = bench.dir.join("lesson");
    let summary = machine.capture(&lesson).await?;
    println!("capture: {summary:?}");
    let began = Instant::now();
    let mut starts = Vec::new();
    for n in 0..5 {
        let mut request = bench.fork_request(100 + n)?;
        std::fs::copy(lesson.join("overlay.qcow2"), &request.disk.top)?;
        request.from = StartFrom::HandOut {
            sealed: bench.sealed.clone(),
            delta: lesson.clone(),
        };
        starts.push(request);
    }
    let started = futures_join(bench, starts).await?;
    println!(
        "hand-out to 5: last one usable after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    if let Some((_, usable)) = started.last() {
        println!("  one of them: {usable:?}");
    }
    machines.push(machine);
    machines.extend(started.into_iter().map(|(m, _)| m));
    let began = Instant::now();
    let count = machines.len();
    for machine in machines {
        machine.end(Duration::ZERO).await?;
    }
    println!("ending {count}: {:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn futures_join(
    bench: &Bench,
    requests: Vec<StartRequest>,
) -> Result<Vec<(Arc<dyn Instance>, Usable)>> {
    let mut instances = Vec::new();
    for request in requests {
        instances.push(bench.hypervisor.start(request).await?);
    }
    let mut out = Vec::new();
    for instance in instances {
        let mut watch = instance.watch();
        let state = watch
            .wait_for(|s| !matches!(s, InstanceState::Starting { .. }))
            .await?
            .clone();
        match state {
            InstanceState::Running { usable } => out.push((instance, usable)),
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(out)
}
