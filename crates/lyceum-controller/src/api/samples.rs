//! What was measured: charts of hosts and desktops, sessions for a rehearsal.

use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path, Query};
use axum::extract::State;
use lyceum_api::ApiError;
use lyceum_api::allocation::{RecordedSession, Sample, Samples};
use lyceum_model::{DesktopId, HostId};
use lyceum_store::agents;
use lyceum_store::desktops::Owner;
use lyceum_store::samples::{self as rows, MINUTE};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(of_host))
        .routes(routes!(of_desktop))
        .routes(routes!(sessions))
}

/// How far back.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct SamplesQuery {
    /// Hours, at most 2400; 6 when left out. Above 24 they are ten-minute averages.
    hours: Option<u32>,
}

const HOUR: i64 = 60 * MINUTE;
/// Up to so many hours minutes are shown.
const MINUTES_UP_TO: u32 = 24;

async fn of(app: &App, subject: String, query: &SamplesQuery) -> Result<Json<Samples>, ApiFailure> {
    let hours = query.hours.unwrap_or(6).clamp(1, 2400);
    let span = if hours <= MINUTES_UP_TO { 1 } else { 10 };
    let from = app.now() - i64::from(hours) * HOUR;
    let rate = |v: Option<i64>| v.map(|v| v.max(0) as u64);
    let samples = rows::of(&app.store, &subject, span, from)
        .await?
        .into_iter()
        .map(|s| Sample {
            at: s.at,
            cpu_percent: (s.values.cpu * 10.0).round() / 10.0,
            memory_kib: s.values.memory_kib.max(0) as u64,
            read_rate: rate(s.values.read_rate),
            written_rate: rate(s.values.written_rate),
            received_rate: rate(s.values.received_rate),
            sent_rate: rate(s.values.sent_rate),
            desktops: s.values.desktops.max(0) as u32,
        })
        .collect();
    Ok(Json(Samples {
        span_minutes: span as u32,
        samples,
    }))
}

/// Measurements of a host.
#[utoipa::path(get, path = "/hosts/{id}/samples", tag = "hosts", params(("id" = HostId, Path), SamplesQuery),
    responses((status = 200, body = Samples), (status = "default", body = ApiError)))]
async fn of_host(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<HostId>,
    Query(query): Query<SamplesQuery>,
) -> Result<Json<Samples>, ApiFailure> {
    actor.require_teacher()?;
    agents::get(&app.store, &id)
        .await?
        .filter(|a| a.kind == "host")
        .ok_or_else(|| ApiFailure::not_found("host"))?;
    of(&app, format!("host/{id}"), &query).await
}

/// Measurements of a desktop.
#[utoipa::path(get, path = "/desktops/{id}/samples", tag = "desktops", params(("id" = DesktopId, Path), SamplesQuery),
    responses((status = 200, body = Samples), (status = "default", body = ApiError)))]
async fn of_desktop(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<DesktopId>,
    Query(query): Query<SamplesQuery>,
) -> Result<Json<Samples>, ApiFailure> {
    let d = super::desktops::mine(&app, &actor, &id).await?;
    if let Owner::Course { course, .. } = &d.owner {
        actor.require_course_staff(&app, course).await?;
    }
    of(&app, format!("desktop/{id}"), &query).await
}

/// How far back.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct SessionsQuery {
    /// Days, at most 400; 7 when left out.
    days: Option<u32>,
}

/// From when to when desktops ran, out of the ten-minute averages: what `lyceum sim --sessions` replays.
#[utoipa::path(get, path = "/samples/sessions", tag = "hosts", params(SessionsQuery),
    responses((status = 200, body = Vec<RecordedSession>), (status = "default", body = ApiError)))]
async fn sessions(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<Vec<RecordedSession>>, ApiFailure> {
    actor.require_admin()?;
    let days = i64::from(query.days.unwrap_or(7).clamp(1, 400));
    let now = app.now();
    let tens = rows::since(&app.store, 10, now - days * 24 * HOUR).await?;
    // What the newest ten-minute averages do not cover yet.
    let from = rows::newest_ten(&app.store)
        .await?
        .map_or(now - 24 * HOUR, |at| at + 10 * MINUTE);
    let minutes = rows::since(&app.store, 1, from).await?;
    Ok(Json(joined(tens.into_iter().chain(minutes).collect())))
}

/// Joins measurements of one desktop that follow each other.
fn joined(mut all: Vec<rows::Sample>) -> Vec<RecordedSession> {
    all.retain(|s| s.subject.starts_with("desktop/"));
    all.sort_by(|a, b| (&a.subject, a.at).cmp(&(&b.subject, b.at)));
    let mut sessions: Vec<RecordedSession> = Vec::new();
    let mut minutes = 0.0;
    for s in all {
        let id = &s.subject["desktop/".len()..];
        let (begin, end, weight) = (s.at, s.at + s.span * MINUTE, s.span as f64);
        match sessions.last_mut() {
            // One that is missing is a measurement that was not made, not a desktop that was off.
            Some(last) if last.desktop == id && begin - last.end <= 10 * MINUTE => {
                last.cpu_percent =
                    (last.cpu_percent * minutes + s.values.cpu * weight) / (minutes + weight);
                last.end = end;
                minutes += weight;
            }
            _ => {
                sessions.push(RecordedSession {
                    desktop: id.to_owned(),
                    begin,
                    end,
                    cpu_percent: s.values.cpu,
                });
                minutes = weight;
            }
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_store::samples::Values;

    fn sample(desktop: &str, minute: i64, span: i64, cpu: f64) -> rows::Sample {
        rows::Sample {
            subject: format!("desktop/{desktop}"),
            span,
            at: minute * MINUTE,
            host: "kvm1".parse().unwrap(),
            values: Values {
                cpu,
                ..Values::default()
            },
            count: 1,
        }
    }

    #[test]
    fn measurements_that_follow_each_other_are_one_session() {
        let sessions = joined(vec![
            sample("b", 0, 1, 5.0),
            sample("a", 0, 10, 10.0),
            sample("a", 10, 10, 20.0),
            sample("a", 20, 1, 30.0),
            // An hour later: another one.
            sample("a", 90, 10, 50.0),
        ]);
        let seen: Vec<(&str, i64, i64)> = sessions
            .iter()
            .map(|s| (s.desktop.as_str(), s.begin / MINUTE, s.end / MINUTE))
            .collect();
        assert_eq!(seen, [("a", 0, 21), ("a", 90, 100), ("b", 0, 1)]);
        let expected = (10.0 * 10.0 + 20.0 * 10.0 + 30.0) / 21.0;
        assert!((sessions[0].cpu_percent - expected).abs() < 1e-9);
    }
}
