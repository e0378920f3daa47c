//! What hosts really draw, where their boards' controllers measure it (DCMI, by IPMI). Kept in memory: it is asked
//! for again every minute.

use super::{password_file, setup, wake};
use crate::app::App;
use lyceum_api::allocation::PowerMethod;
use lyceum_model::{HostId, UnixMillis};
use lyceum_store::power::State;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(60);
/// A board that does not measure is asked again after this long.
const NOT_MEASURED_MS: UnixMillis = 60 * 60_000;
/// An older reading is none.
const FRESH_MS: UnixMillis = 3 * 60_000;
/// What is no plausible reading, watts.
const MOST_WATTS: f64 = 100_000.0;

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: UnixMillis,
    /// `None`: its board does not measure.
    watts: Option<f64>,
}

/// The last readings.
#[derive(Debug, Default)]
pub struct Watts(Mutex<HashMap<HostId, Reading>>);

impl Watts {
    /// What a host draws by its own measurement, watts.
    pub fn now(&self, host: &HostId, now: UnixMillis) -> Option<f64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(host)
            .filter(|r| (0..FRESH_MS).contains(&(now - r.at)))?
            .watts
    }

    fn keep(&self, host: &HostId, reading: Reading) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(host.clone(), reading);
    }

    fn due(&self, host: &HostId, now: UnixMillis) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(host)
            .is_none_or(|r| r.watts.is_some() || !(0..NOT_MEASURED_MS).contains(&(now - r.at)))
    }
}

/// Runs for ever.
pub async fn run(app: App) {
    loop {
        match lyceum_store::power::all(&app.store).await {
            Ok(rows) => {
                let asked = rows
                    .iter()
                    .filter(|row| row.state == State::On)
                    .filter_map(|row| match setup(row).method {
                        Some(PowerMethod::Ipmi { address, user }) => {
                            Some(one(&app, row.host.clone(), address, user))
                        }
                        _ => None,
                    });
                futures::future::join_all(asked).await;
            }
            Err(e) => tracing::warn!("what hosts draw could not be asked for: {e}"),
        }
        tokio::time::sleep(ROUND).await;
    }
}

async fn one(app: &App, host: HostId, address: String, user: String) {
    if !app.watts.due(&host, app.now()) {
        return;
    }
    let password = password_file(app, &host);
    let said = wake::ipmi(&address, &user, &password, &["dcmi", "power", "reading"]).await;
    let watts = match &said {
        Ok(text) => reading(text),
        Err(why) => {
            tracing::debug!(%host, "its board measures nothing: {why}");
            None
        }
    };
    let at = app.now();
    app.watts.keep(&host, Reading { at, watts });
}

/// The watts in what `ipmitool dcmi power reading` says.
fn reading(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Instantaneous power reading:"))?;
    // A board that does not measure just now says so below.
    if text.lines().any(|line| {
        line.trim()
            .strip_prefix("Power reading state is:")
            .is_some_and(|state| state.trim().eq_ignore_ascii_case("deactivated"))
    }) {
        return None;
    }
    let watts: f64 = line.split_whitespace().next()?.parse().ok()?;
    (watts > 0.0 && watts <= MOST_WATTS).then_some(watts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "
    Instantaneous power reading:                   128 Watts
    Minimum during sampling period:                 16 Watts
    Maximum during sampling period:                341 Watts
    Average power reading over sample period:      131 Watts
    IPMI timestamp:                           Mon Nov 23 08:14:02 2026
    Sampling period:                          00000005 Seconds.
    Power reading state is:                   activated
";

    #[test]
    fn the_reading_is_found_and_nonsense_is_none() {
        assert_eq!(reading(SAID), Some(128.0));
        for text in [
            "".to_owned(),
            "DCMI request failed because: Invalid command (c1)".to_owned(),
            SAID.replace("128 Watts", "0 Watts"),
            SAID.replace("128 Watts", "NaN Watts"),
            SAID.replace("128", "9999999"),
            SAID.replace("activated", "deactivated"),
        ] {
            assert_eq!(reading(&text), None, "{text}");
        }
    }

    #[test]
    fn a_board_that_does_not_measure_is_left_alone_for_an_hour() {
        let (watts, host): (Watts, HostId) = (Watts::default(), "kvm1".parse().unwrap());
        assert!(watts.due(&host, 0));
        watts.keep(&host, Reading { at: 0, watts: None });
        assert!(!watts.due(&host, 60_000));
        assert!(watts.due(&host, NOT_MEASURED_MS));
        let now = NOT_MEASURED_MS;
        let some = Some(99.5);
        watts.keep(
            &host,
            Reading {
                at: now,
                watts: some,
            },
        );
        assert!(watts.due(&host, now + 60_000));
        assert_eq!(watts.now(&host, now + 60_000), some);
        assert_eq!(watts.now(&host, now + FRESH_MS), None);
        // The clock was set back.
        assert_eq!(watts.now(&host, now - 1), None);
    }
}
