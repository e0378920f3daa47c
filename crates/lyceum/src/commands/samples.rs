//! `lyceum samples`: what was measured.

use crate::context::{Context, print};
use clap::Subcommand;
use lyceum_api::allocation::RecordedSession;
use lyceum_sim::Session;

/// Measurements.
#[derive(Debug, Subcommand)]
pub enum SamplesCommand {
    /// From when to when desktops ran and what they computed, as `lyceum sim --sessions FILE` replays it
    Export {
        /// How many days back
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=400))]
        days: u32,
    },
}

/// Runs the command.
pub async fn run(ctx: &Context, command: SamplesCommand) -> anyhow::Result<()> {
    let SamplesCommand::Export { days } = command;
    let recorded: Vec<RecordedSession> = ctx
        .client
        .get(&format!("samples/sessions?days={days}"))
        .await?;
    let zone = jiff::tz::TimeZone::system();
    let sessions = sessions(&recorded, &zone)?;
    print(&(serde_json::to_string_pretty(&sessions)? + "\n"))
}

/// Minutes from the Monday, 00:00 on the wall, at or before the first.
fn sessions(
    recorded: &[RecordedSession],
    zone: &jiff::tz::TimeZone,
) -> anyhow::Result<Vec<Session>> {
    let Some(first) = recorded.iter().map(|s| s.begin).min() else {
        return Ok(Vec::new());
    };
    let day = jiff::Timestamp::from_millisecond(first)?
        .to_zoned(zone.clone())
        .start_of_day()?;
    let back = i64::from(day.weekday().to_monday_zero_offset());
    let monday = day
        .checked_sub(jiff::Span::new().days(back))?
        .start_of_day()?
        .timestamp()
        .as_millisecond();
    let minutes = |at: i64| (at - monday) as f64 / 60_000.0;
    let mut all: Vec<Session> = recorded
        .iter()
        .map(|s| Session {
            begin: minutes(s.begin),
            end: minutes(s.end),
            cpu_percent: s.cpu_percent,
            class: None,
        })
        .collect();
    all.sort_by(|a, b| a.begin.total_cmp(&b.begin));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_counted_from_a_monday_and_can_be_rehearsed() {
        // Wednesday, 1970-01-07, 08:10 UTC.
        let begin = (6 * 24 * 60 + 8 * 60 + 10) * 60_000;
        let recorded = [RecordedSession {
            desktop: "d1".into(),
            begin,
            end: begin + 50 * 60_000,
            cpu_percent: 12.5,
        }];
        let made = sessions(&recorded, &jiff::tz::TimeZone::UTC).unwrap();
        assert_eq!(made[0].begin, f64::from(2 * 24 * 60 + 490));
        assert_eq!(made[0].end - made[0].begin, 50.0);
        let scenario = lyceum_sim::Scenario::default();
        assert!(lyceum_sim::rehearse(&scenario, Some(made)).is_ok());
        assert!(sessions(&[], &jiff::tz::TimeZone::UTC).unwrap().is_empty());
    }
}
