//! Courses' networks: their segments, what they allow, who has which place in them; and from where
//! people are signed in, for the doors.

use crate::{Result, Store, StoreError, Tx, flag, parse};
use lyceum_model::{CourseId, DesktopId, SessionId, UnixMillis};
use sqlx::Row;
use std::collections::HashMap;

/// The network of a course.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CourseNetwork {
    /// Whose.
    pub course: CourseId,
    /// Number of its segment.
    pub number: u32,
    /// With the way out closed, the allowed destinations stay open.
    pub listed: bool,
    /// Destinations, as they were checked.
    pub allowed: Vec<String>,
    /// Whether its desktops reach each other.
    pub among_themselves: bool,
    /// Until when there is an examination.
    pub exam_until: Option<UnixMillis>,
}

fn network(row: &sqlx::any::AnyRow) -> Result<CourseNetwork> {
    let allowed: String = row.try_get("allowed")?;
    let number: i64 = row.try_get("number")?;
    Ok(CourseNetwork {
        course: parse("course_networks.course_id", row.try_get("course_id")?)?,
        number: number.clamp(0, i64::from(u32::MAX)) as u32,
        listed: flag(row, "listed")?,
        allowed: serde_json::from_str(&allowed).map_err(|_| StoreError::Unreadable {
            what: "course_networks.allowed",
            value: allowed,
        })?,
        among_themselves: flag(row, "among_themselves")?,
        exam_until: row.try_get("exam_until")?,
    })
}

/// All courses that have one.
pub async fn all(store: &Store) -> Result<Vec<CourseNetwork>> {
    sqlx::query("SELECT * FROM course_networks ORDER BY number")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(network)
        .collect()
}

/// A course's, if it has one already.
pub async fn get(store: &Store, course: &CourseId) -> Result<Option<CourseNetwork>> {
    sqlx::query("SELECT * FROM course_networks WHERE course_id = $1")
        .bind(course.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| network(&row))
        .transpose()
}

/// A course's; made with the lowest free number when it has none.
pub async fn get_or_make(tx: &mut Tx, course: &CourseId) -> Result<CourseNetwork> {
    let row = sqlx::query("SELECT * FROM course_networks WHERE course_id = $1")
        .bind(course.as_str())
        .fetch_optional(tx.connection())
        .await?;
    if let Some(row) = row {
        return network(&row);
    }
    let (number,): (i64,) = sqlx::query_as(
        "SELECT COALESCE(MIN(n), 1) FROM
           (SELECT 1 AS n UNION ALL SELECT number + 1 FROM course_networks) AS free
         WHERE n NOT IN (SELECT number FROM course_networks)",
    )
    .fetch_one(tx.connection())
    .await?;
    let new = CourseNetwork {
        course: course.clone(),
        number: number.clamp(1, i64::from(u32::MAX)) as u32,
        listed: false,
        allowed: Vec::new(),
        among_themselves: false,
        exam_until: None,
    };
    put(tx, &new).await?;
    Ok(new)
}

/// Writes it.
pub async fn put(tx: &mut Tx, n: &CourseNetwork) -> Result<()> {
    let allowed = serde_json::Value::from(n.allowed.clone()).to_string();
    sqlx::query(
        "INSERT INTO course_networks (course_id, number, listed, allowed, among_themselves, exam_until)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (course_id) DO UPDATE SET listed = excluded.listed, allowed = excluded.allowed,
           among_themselves = excluded.among_themselves, exam_until = excluded.exam_until",
    )
    .bind(n.course.as_str())
    .bind(i64::from(n.number))
    .bind(i16::from(n.listed))
    .bind(allowed)
    .bind(i16::from(n.among_themselves))
    .bind(n.exam_until)
    .execute(tx.connection())
    .await?;
    tx.touch("network", &n.course);
    tx.touch("course", &n.course);
    Ok(())
}

/// Places by desktop.
pub async fn places(store: &Store) -> Result<HashMap<DesktopId, u32>> {
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT desktop_id, place FROM network_places")
        .fetch_all(store.pool())
        .await?;
    rows.into_iter()
        .map(|(id, place)| {
            let place = place.clamp(0, i64::from(u32::MAX)) as u32;
            Ok((parse("network_places.desktop_id", &id)?, place))
        })
        .collect()
}

/// The desktop's place; the lowest free one when it has none.
pub async fn place_of(tx: &mut Tx, desktop: &DesktopId, course: &CourseId) -> Result<u32> {
    let found: Option<(i64,)> =
        sqlx::query_as("SELECT place FROM network_places WHERE desktop_id = $1")
            .bind(desktop.as_str())
            .fetch_optional(tx.connection())
            .await?;
    if let Some((place,)) = found {
        return Ok(place.clamp(0, i64::from(u32::MAX)) as u32);
    }
    let (place,): (i64,) = sqlx::query_as(
        "SELECT COALESCE(MIN(n), 1) FROM
           (SELECT 1 AS n UNION ALL SELECT place + 1 FROM network_places WHERE course_id = $1) AS free
         WHERE n NOT IN (SELECT place FROM network_places WHERE course_id = $1)",
    )
    .bind(course.as_str())
    .fetch_one(tx.connection())
    .await?;
    sqlx::query("INSERT INTO network_places (desktop_id, course_id, place) VALUES ($1, $2, $3)")
        .bind(desktop.as_str())
        .bind(course.as_str())
        .bind(place)
        .execute(tx.connection())
        .await?;
    tx.touch("network", course);
    Ok(place.clamp(0, i64::from(u32::MAX)) as u32)
}

/// The classroom's IPv6 range; `new` becomes it when there is none.
pub async fn v6(tx: &mut Tx, new: &str) -> Result<String> {
    sqlx::query("INSERT INTO network_site (id, v6) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
        .bind(new)
        .execute(tx.connection())
        .await?;
    let (v6,): (String,) = sqlx::query_as("SELECT v6 FROM network_site WHERE id = 1")
        .fetch_one(tx.connection())
        .await?;
    Ok(v6)
}

/// Running desktops with the sessions, and where those began, of who may look at them: their people,
/// teachers of their courses, admins.
pub async fn doors(store: &Store) -> Result<Vec<(DesktopId, SessionId, String)>> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT d.id, s.id, s.address FROM desktops d
         JOIN sessions s ON s.user_id = d.user_id
           OR s.user_id IN (SELECT m.user_id FROM members m
                            WHERE m.course_id = d.course_id AND m.role = 'teacher')
           OR s.user_id IN (SELECT u.id FROM users u WHERE u.role = 'admin')
         JOIN users o ON o.id = s.user_id AND o.disabled = 0
         WHERE d.desired = 'running' AND d.gave_up = 0 AND d.phase <> 'failed' AND d.course_id IS NOT NULL
         ORDER BY d.id, s.id",
    )
    .fetch_all(store.pool())
    .await?;
    rows.into_iter()
        .map(|(id, session, address)| {
            Ok((
                parse("desktops.id", &id)?,
                parse("sessions.id", &session)?,
                address,
            ))
        })
        .collect()
}
