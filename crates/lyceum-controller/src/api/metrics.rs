//! `GET /metrics` for Prometheus, in its text format. Who asks shows the token in the file `metrics-token` of
//! the state directory (`Authorization: Bearer TOKEN`); on the local socket nobody is asked.

use crate::app::App;
use crate::auth::Origin;
use crate::error::ApiFailure;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lyceum_proto::host::HostFacts;
use lyceum_store::power::State as Power;
use lyceum_store::{agents, desktops};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use subtle::ConstantTimeEq;

mod disks;

/// Name of the file in the state directory.
const TOKEN: &str = "metrics-token";

/// The route.
pub fn routes() -> Router<App> {
    Router::new().route("/metrics", get(metrics))
}

/// The token; made when there is none.
async fn token(app: &App) -> io::Result<String> {
    let path: PathBuf = app.config.state_dir.join(TOKEN);
    match tokio::fs::read_to_string(&path).await {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let text = hex::encode(bytes);
    lyceum_wire::write_atomically(&path, text.as_bytes(), 0o600)
        .map_err(|e| io::Error::other(e.to_string()))?;
    Ok(text)
}

async fn metrics(State(app): State<App>, request: Request) -> Result<Response, ApiFailure> {
    if request.extensions().get::<Origin>() != Some(&Origin::Socket) {
        let wanted = token(&app).await.map_err(ApiFailure::internal)?;
        let shown = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "))
            .unwrap_or_default();
        if !bool::from(wanted.as_bytes().ct_eq(shown.as_bytes())) {
            return Err(ApiFailure::unauthenticated());
        }
    }
    let text = render(&app).await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok((
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response())
}

/// Families of one name, in the order they are written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str, values: &[(String, f64)]) {
        if values.is_empty() {
            return;
        }
        // Writing to a text can't fail.
        let _ = writeln!(
            self.0,
            "# HELP lyceum_{name} {help}\n# TYPE lyceum_{name} {kind}"
        );
        for (labels, value) in values {
            let _ = writeln!(self.0, "lyceum_{name}{labels} {value}");
        }
    }
}

/// `{name="value"}`; names of hosts and desktops need no escapes, other texts get them.
fn label(name: &str, value: &str) -> String {
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

async fn render(app: &App) -> Result<String, ApiFailure> {
    let mut page = Page::default();
    let power = lyceum_store::power::all(&app.store).await?;
    let mut families: BTreeMap<usize, Vec<(String, f64)>> = BTreeMap::new();
    const HOST: &[(&str, &str, &str)] = &[
        ("host_up", "gauge", "Whether the host's agent is heard."),
        ("host_on", "gauge", "Whether the host is on, or should be."),
        ("host_cpu_ratio", "gauge", "CPU use of the host, 0 to 1."),
        (
            "host_memory_bytes",
            "gauge",
            "Memory that desktops may use.",
        ),
        (
            "host_available_bytes",
            "gauge",
            "Memory that is available on the machine.",
        ),
        (
            "host_desktops_pss_bytes",
            "gauge",
            "Memory of the host's desktops (Pss).",
        ),
        ("host_desktops", "gauge", "Desktops on the host."),
        (
            "host_read_bytes_total",
            "counter",
            "Bytes read from the host's disks.",
        ),
        (
            "host_written_bytes_total",
            "counter",
            "Bytes written to the host's disks.",
        ),
        (
            "host_received_bytes_total",
            "counter",
            "Bytes received by the host's network cards.",
        ),
        (
            "host_sent_bytes_total",
            "counter",
            "Bytes sent by the host's network cards.",
        ),
        ("host_watts", "gauge", "What the host is said to draw now."),
        (
            "desktop_cpu_ratio",
            "gauge",
            "CPU use of a desktop in processors.",
        ),
        ("desktop_pss_bytes", "gauge", "Memory of a desktop (Pss)."),
        (
            "desktop_read_bytes_total",
            "counter",
            "Bytes a desktop's machine read from disk.",
        ),
        (
            "desktop_written_bytes_total",
            "counter",
            "Bytes a desktop's machine wrote to disk.",
        ),
    ];
    let mut put = |family: usize, labels: String, value: f64| {
        if value.is_finite() {
            families.entry(family).or_default().push((labels, value));
        }
    };
    let now = app.now();
    let mut replicas = Vec::new();
    for agent in agents::list(&app.store, "host").await? {
        let l = || label("host", agent.id.as_str());
        let up = agent
            .heard
            .is_some_and(|at| now - at <= crate::orders::cluster::SILENT_AFTER_MS);
        put(0, l(), f64::from(u8::from(up)));
        let row = power.iter().find(|p| p.host == agent.id);
        let on = row.is_none_or(|p| p.state != Power::Off);
        put(1, l(), f64::from(u8::from(on)));
        if let Some(row) = row {
            let setup = crate::power::setup(row);
            let watts = if on { setup.watts } else { setup.watts_off };
            if let Some(watts) = watts {
                put(11, l(), watts);
            }
        }
        let facts = agent.facts.as_deref().filter(|_| up);
        let facts: Option<HostFacts> = facts.and_then(|t| serde_json::from_str(t).ok());
        if let Some(replica) = facts.and_then(|f| f.replica) {
            replicas.push((agent.id.to_string(), replica));
        }
        // Old numbers would look like new ones.
        let Some(seen) = app.live.host(&agent.id).filter(|_| up) else {
            continue;
        };
        let mib = |n: u64| n as f64 * 1_048_576.0;
        put(2, l(), seen.load.cpu_percent / 100.0);
        put(3, l(), mib(seen.load.memory_mib));
        put(4, l(), mib(seen.load.available_mib));
        put(5, l(), mib(seen.load.desktops_pss_mib));
        let running = seen.desktops.iter().filter(|d| d.phase.may_hold_disk());
        put(6, l(), running.clone().count() as f64);
        let t = seen.load.traffic;
        for (family, value) in [(7, t.read), (8, t.written), (9, t.received), (10, t.sent)] {
            if let Some(value) = value {
                put(family, l(), value as f64);
            }
        }
        for d in running {
            let l = || format!("{{desktop=\"{}\",host=\"{}\"}}", d.desktop, agent.id);
            put(12, l(), d.cpu_percent / 100.0);
            put(13, l(), d.pss_kib as f64 * 1024.0);
            for (family, value) in [(14, d.traffic.read), (15, d.traffic.written)] {
                if let Some(value) = value {
                    put(family, l(), value as f64);
                }
            }
        }
    }
    for (family, values) in &families {
        let (name, kind, help) = HOST[*family];
        page.family(name, kind, help, values);
    }
    disks::replicas(&mut page, &replicas);
    let storage = agents::list(&app.store, "storage").await?;
    // There is one; when a second one joined by mistake, the first counts.
    if let Some(agent) = storage.into_iter().min_by_key(|a| a.joined) {
        let up = agent
            .heard
            .is_some_and(|at| now - at <= crate::orders::cluster::SILENT_AFTER_MS);
        let facts = agent.facts.as_deref().filter(|_| up);
        let facts = facts.and_then(|t| serde_json::from_str(t).ok());
        disks::storage(&mut page, agent.id.as_str(), facts.as_ref(), now);
    }
    let mut phases: BTreeMap<String, f64> = BTreeMap::new();
    for d in desktops::all(&app.store).await? {
        *phases.entry(lyceum_store::word(&d.phase)).or_default() += 1.0;
    }
    let phases: Vec<_> = phases
        .into_iter()
        .map(|(phase, n)| (label("phase", &phase), n))
        .collect();
    page.family(
        "desktops",
        "gauge",
        "Desktops by what they are doing.",
        &phases,
    );
    Ok(page.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut page = Page::default();
        page.family("x", "gauge", "What.", &[(label("a", "b\"\\\nc"), 1.5)]);
        page.family("nothing", "gauge", "Nothing.", &[]);
        assert_eq!(
            page.0,
            "# HELP lyceum_x What.\n# TYPE lyceum_x gauge\nlyceum_x{a=\"b\\\"\\\\\\nc\"} 1.5\n"
        );
    }
}
