//! How hosts are switched: what is set up for each, where passwords are, and the ways to bring one up. When
//! hosts are switched is decided in [`crate::reconcile::power`].

pub mod measure;
pub mod wake;

use crate::app::App;
use lyceum_api::allocation::{HostPower, PowerMethod, PowerSetup, PowerState};
use lyceum_model::HostId;
use lyceum_proto::host::HostFacts;
use lyceum_store::power::{Power, State, Wanted};
use std::path::PathBuf;

/// A host that could not be switched is not tried again by itself for this long, milliseconds.
pub const LEAVE_ALONE_MS: i64 = 60 * 60_000;

/// What was set up for a host. What can't be read is nothing: it was checked when it was written.
pub fn setup(row: &Power) -> PowerSetup {
    serde_json::from_str(&row.setup).unwrap_or_default()
}

/// File of the password of a host's board controller, private to this user.
pub fn password_file(app: &App, host: &HostId) -> PathBuf {
    app.config
        .state_dir
        .join("secrets")
        .join(format!("power-{host}"))
}

/// Keeps a password; an empty one is removed.
pub fn keep_password(app: &App, host: &HostId, password: &str) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let path = password_file(app, host);
    if password.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(app.config.state_dir.join("secrets"))?;
    lyceum_wire::write_atomically(&path, password.as_bytes(), 0o600)
        .map_err(|e| std::io::Error::other(e.to_string()))
}

/// Why a host can't be switched from afar; `None`: it can.
pub fn not_switchable(app: &App, setup: &PowerSetup, facts: Option<&HostFacts>) -> Option<String> {
    match &setup.method {
        None => Some("nothing is set up that could bring it up again".into()),
        Some(PowerMethod::Command { name }) if !app.config.power_commands.contains_key(name) => {
            Some(format!(
                "the controller's configuration has no power command {name:?}"
            ))
        }
        Some(_) => facts.is_none_or(|f| !f.can_power_off).then(|| {
            "its agent was not told how to switch its machine off (power_off in its configuration)"
                .into()
        }),
    }
}

/// For the page.
pub fn shown(app: &App, row: Option<&Power>, facts: Option<&HostFacts>) -> HostPower {
    let setup = row.map(setup).unwrap_or_default();
    HostPower {
        not_switchable: not_switchable(app, &setup, facts),
        state: match row.map_or(State::On, |r| r.state) {
            State::On => PowerState::On,
            State::Waking => PowerState::Waking,
            State::Off => PowerState::Off,
            State::GoingOff => PowerState::GoingOff,
        },
        since: row.map_or(0, |r| r.since),
        wanted: row.and_then(|r| r.wanted).map(|w| w == Wanted::On),
        failure: row.map(|r| r.failure.clone()).unwrap_or_default(),
        failed_at: row.and_then(|r| r.failed_at),
        watts: setup.watts,
        measured_watts: row.and_then(|r| app.watts.now(&r.host, app.now())),
        reserve: setup.reserve,
        maintenance: setup.maintenance,
        group: setup.group,
    }
}

/// Whether a setup can be used; the error says what is wrong and what to do.
pub fn check(app: &App, setup: &PowerSetup) -> Result<(), String> {
    for (what, watts) in [("watts", setup.watts), ("watts_off", setup.watts_off)] {
        if watts.is_some_and(|w| !(0.0..=100_000.0).contains(&w)) {
            return Err(format!("{what} is 0 to 100000"));
        }
    }
    if setup
        .group
        .as_ref()
        .is_some_and(|g| g.is_empty() || g.chars().count() > 64 || g.chars().any(char::is_control))
    {
        return Err("group is 1 to 64 characters without control characters".into());
    }
    match &setup.method {
        None => Ok(()),
        Some(PowerMethod::WakeOnLan { mac, address }) => {
            wake::mac(mac)?;
            wake::destination(address.as_deref()).map(drop)
        }
        Some(PowerMethod::Ipmi { address, user }) => {
            wake::ipmi_address(address)?;
            plain("user", user)
        }
        Some(PowerMethod::Redfish {
            url, user, system, ..
        }) => {
            plain("user", user)?;
            wake::redfish_url(url).map(drop)?;
            match system {
                Some(system) => plain("system", system),
                None => Ok(()),
            }
        }
        Some(PowerMethod::Command { name }) => match app.config.power_commands.contains_key(name) {
            true => Ok(()),
            false => Err(format!(
                "there is no power command {name:?} in the controller's configuration; it has: {}",
                app.config
                    .power_commands
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        },
    }
}

fn plain(what: &str, text: &str) -> Result<(), String> {
    let good = (1..=128).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_graphic());
    good.then_some(()).ok_or_else(|| {
        format!("{what} is 1 to 128 visible ASCII characters and does not begin with '-'")
    })
}
