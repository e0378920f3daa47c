//! Who sits down when, for how long, and how hard they work. Made once, and the same for every policy.

use crate::lessons::{self, Lessons};
use crate::random::Random;
use crate::scenario::{Bad, DAY, Scenario, WEEK};
use serde::{Deserialize, Serialize};

/// One person at one desktop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Sits down, minutes since the scenario began (a Monday, 00:00).
    pub begin: f64,
    /// Leaves, in the same.
    pub end: f64,
    /// CPU use of the desktop's own virtual CPU, percent.
    pub cpu_percent: f64,
    /// The course and its period, by their places in the scenario, when it is a class.
    #[serde(default)]
    pub class: Option<(usize, usize)>,
}

/// Sessions out of a scenario's parameters, by the time they begin.
pub(crate) fn made(scenario: &Scenario, lessons: &Lessons) -> Vec<Session> {
    let mut random = Random::new(scenario.seed, 1);
    let mut sessions = Vec::new();
    for week in 0..scenario.weeks {
        let offset = f64::from(week * WEEK);
        for meeting in &lessons.meetings[lessons.week(week)] {
            for _ in 0..scenario.courses[meeting.course].students {
                // Not everybody comes; most are there at the bell, some are late.
                if !random.chance(0.95) {
                    continue;
                }
                let late = if random.chance(0.8) {
                    -5.0 * random.unit()
                } else {
                    random.heavy(3.0, 0.8).min(40.0)
                };
                // Some pack early, some stay on.
                let over = if random.chance(0.7) {
                    -3.0 * random.unit()
                } else {
                    random.heavy(8.0, 1.0).min(180.0)
                };
                sessions.push(Session {
                    begin: (f64::from(meeting.bell) + late).max(0.0),
                    end: f64::from(meeting.end) + over,
                    cpu_percent: cpu(&mut random),
                    class: Some((meeting.course, meeting.period)),
                });
            }
        }
        for hour in 0..7 * 24 {
            let open = hour / 24 < 5 && (8..22).contains(&(hour % 24));
            let study = &scenario.self_study;
            let rate = if open {
                study.per_hour
            } else {
                study.per_hour_quiet
            };
            // Large rates in pieces: the draw multiplies probabilities.
            let pieces = (rate / 100.0).ceil().max(1.0);
            for _ in 0..pieces as u32 {
                for _ in 0..random.poisson(rate / pieces) {
                    let begin = offset + f64::from(hour * 60) + 60.0 * random.unit();
                    sessions.push(Session {
                        begin,
                        end: begin
                            + random
                                .heavy(study.median_minutes, 0.9)
                                .clamp(3.0, f64::from(DAY)),
                        cpu_percent: cpu(&mut random),
                        class: None,
                    });
                }
            }
        }
    }
    sessions.sort_by(|a, b| a.begin.total_cmp(&b.begin).then(a.end.total_cmp(&b.end)));
    sessions
}

/// Most desktops wait for their person; a few compute.
fn cpu(random: &mut Random) -> f64 {
    random.heavy(4.0, 1.3).clamp(0.5, 100.0)
}

/// Recorded sessions, put in order, if they can be played.
pub(crate) fn checked(
    mut sessions: Vec<Session>,
    scenario: &Scenario,
) -> Result<Vec<Session>, Bad> {
    let counts = lessons::counts(scenario)?;
    for (i, s) in sessions.iter().enumerate() {
        let at = |field: &str| format!("sessions[{i}].{field}");
        if !s.begin.is_finite() || s.begin < 0.0 {
            return Err(Bad::new(
                at("begin"),
                "must be a number of minutes, 0 or more",
            ));
        }
        if !s.end.is_finite() || s.end < s.begin {
            return Err(Bad::new(at("end"), "must not be before the beginning"));
        }
        if !(0.0..=100.0).contains(&s.cpu_percent) {
            return Err(Bad::new(at("cpu_percent"), "must be 0 to 100"));
        }
        if let Some((c, p)) = s.class
            && counts.get(c).is_none_or(|count| *count <= p)
        {
            return Err(Bad::new(at("class"), "there is no such course or period"));
        }
    }
    sessions.sort_by(|a, b| a.begin.total_cmp(&b.begin).then(a.end.total_cmp(&b.end)));
    Ok(sessions)
}
