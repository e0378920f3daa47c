//! TCP between two machines, both ways, with iperf3.

use super::record::{Beside, Output, Record, Row, change};
use super::say;
use super::tools::{IPERF_PORT, Tcp, tcp};
use crate::exit::{self, Exit};
use std::net::IpAddr;
use std::process::Stdio;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The other machine's address on the network to measure
    #[arg(value_name = "ADDRESS", required_unless_present = "serve")]
    peer: Option<IpAddr>,
    /// Be the other machine: wait on this own address for measurements until Ctrl-C. Whoever reaches it may measure
    #[arg(long, value_name = "ADDRESS", conflicts_with = "peer")]
    serve: Option<IpAddr>,
    /// Port of iperf3
    #[arg(long, value_name = "PORT", default_value_t = IPERF_PORT)]
    port: u16,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How often each is done
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Connections at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4", value_parser = clap::value_parser!(u32).range(1..=128))]
    streams: Vec<u32>,
    /// Where the results go
    #[command(flatten)]
    output: Output,
}

/// Measures and reports.
pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let peer = match (args.serve, args.peer) {
        (Some(own), _) => return serve(own, args.port).await,
        (None, Some(peer)) => peer,
        (None, None) => return Err(Exit::usage("name the other machine's address")),
    };
    Record::check(&args.output, "net")?;
    let mut record = Record::new("net", &format!("TCP to {peer}, both ways"));
    for (series, receive) in [("send", false), ("receive", true)] {
        for &streams in &args.streams {
            say(&format!("{series}, {streams} connection(s)"));
            let mut samples = Vec::new();
            let (mut again, mut cpu) = (0, 0.0f64);
            for _ in 0..args.repeat {
                let reached = tcp(&Tcp {
                    peer,
                    port: args.port,
                    seconds: args.seconds,
                    streams,
                    receive,
                })
                .await?;
                samples.push(reached.mbits);
                again += reached.retransmits.unwrap_or(0);
                cpu = cpu.max(reached.cpu);
            }
            record.rows.push(Row {
                series: series.into(),
                point: format!("{streams} connection(s)"),
                unit: "Mbit/s".into(),
                samples,
                less: false,
                note: format!("{again} segments sent again, {cpu:.0} % of a CPU here"),
            });
        }
    }
    let before = args.output.before.as_ref();
    let here = before
        .and_then(|path| serde_json::from_slice::<Record>(&std::fs::read(path).ok()?).ok())
        .and_then(|before| {
            let row = record.rows.iter().find(|r| r.series == "receive")?;
            Some(change(before.value(&row.series, &row.point)?, row.value()))
        });
    record.paper.push(Beside {
        what: "receiving, after tuning against before".into(),
        paper: "+9 %".into(),
        here: here.unwrap_or_default(),
    });
    if peer.is_loopback() {
        record
            .notes
            .push("Loopback: this is the memory of one machine, and no network.".into());
    }
    record.tell(&args.output, json)
}

async fn serve(own: IpAddr, port: u16) -> anyhow::Result<()> {
    if own.is_unspecified() {
        return Err(Exit::usage(
            "--serve takes one address of this machine, that of the network to measure: iperf3 asks nobody who they are",
        ));
    }
    let mut child = tokio::process::Command::new("iperf3")
        .args(["-s", "-B", &own.to_string(), "-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            Exit::coded(
                exit::FAILED,
                format!("iperf3 can't be run: {e}. Install it, on Debian: apt install iperf3"),
            )
        })?;
    say(&format!(
        "waiting on {own}, port {port}; on the other machine: lyceum bench net {own}. Ctrl-C ends it"
    ));
    tokio::select! {
        status = child.wait() => Err(Exit::coded(
            exit::FAILED,
            format!(
                "iperf3 ended ({}): is {own} an address of this machine, and port {port} free?",
                status.map_or_else(|e| e.to_string(), |s| s.to_string())
            ),
        )),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tools::large_packets;
    use super::*;
    use std::time::{Duration, Instant};

    /// With the real iperf3 on loopback; `make test` installs it.
    #[tokio::test]
    async fn both_ways_and_large_packets_on_loopback() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let own: IpAddr = "127.0.0.1".parse().unwrap();
        let wanted = Tcp {
            peer: own,
            port,
            seconds: 1,
            streams: 1,
            receive: false,
        };
        let said = tcp(&wanted).await.unwrap_err().to_string();
        assert!(
            said.contains("lyceum bench net --serve 127.0.0.1"),
            "{said}"
        );
        let server = tokio::spawn(serve(own, port));
        for receive in [false, true] {
            let deadline = Instant::now() + Duration::from_secs(60);
            let reached = loop {
                let wanted = Tcp {
                    peer: own,
                    port,
                    seconds: 1,
                    streams: 2,
                    receive,
                };
                match tcp(&wanted).await {
                    Ok(reached) => break reached,
                    Err(_) if Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(e) => panic!("{e}"),
                }
            };
            assert!(reached.mbits > 0.0, "{reached:?}");
        }
        server.abort();
        assert!(!large_packets(own, port, 9000).await.unwrap_or(false));
    }
}
