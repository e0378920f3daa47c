//! Courses and who is on their rosters.

use crate::{Result, Store, Tx, flag, parse, parse_opt, word};
use lyceum_model::{CourseId, ImageId, MachineSize, Persistence, ReleaseId, UnixMillis, UserId};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// A course.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// Which.
    pub id: CourseId,
    /// Title.
    pub name: String,
    /// Its golden image.
    pub image: ImageId,
    /// The release it pins; `None`: the image's newest offered one.
    pub release: Option<ReleaseId>,
    /// Size of its desktops; `None`: as the release was sealed.
    pub size: Option<MachineSize>,
    /// What is kept.
    pub persistence: Persistence,
    /// Whether its desktops reach the outside.
    pub outside: bool,
    /// Whether its desktops serve SPICE as well, from their next start on.
    pub spice: bool,
    /// Nobody sees it any more; the row goes with its last desktop.
    pub deleting: bool,
    /// When it was made.
    pub created: UnixMillis,
}

/// What somebody is in a course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Has a desktop.
    Student,
    /// Runs the course.
    Teacher,
}

/// Somebody on a roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Sign-in name.
    pub login: String,
    /// Name as shown.
    pub name: String,
    /// Role in the course.
    pub role: MemberRole,
}

/// The release that new desktops of a course start from, as far as a course's line needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CourseRelease {
    /// Which.
    pub id: ReleaseId,
    /// Its number within the image.
    pub version: i64,
    /// JSON of its manifest.
    pub manifest: String,
}

/// A course with what a list of courses shows.
#[derive(Debug, Clone, PartialEq)]
pub struct CourseLine {
    /// The course.
    pub course: Course,
    /// Name of its image.
    pub image_name: String,
    /// Students on its roster.
    pub students: i64,
    /// Desktops that run.
    pub running: i64,
    /// The release; see [`CourseRelease`].
    pub release: Option<CourseRelease>,
}

fn course(row: &sqlx::any::AnyRow) -> Result<Course> {
    let vcpus: Option<i64> = row.try_get("vcpus")?;
    let memory: Option<i64> = row.try_get("memory_mib")?;
    Ok(Course {
        id: parse("courses.id", row.try_get("id")?)?,
        name: row.try_get("name")?,
        image: parse("courses.image_id", row.try_get("image_id")?)?,
        release: parse_opt("courses.release_id", row.try_get("release_id")?)?,
        size: vcpus.zip(memory).map(|(vcpus, memory_mib)| MachineSize {
            vcpus: vcpus as u16,
            memory_mib: memory_mib as u32,
        }),
        persistence: parse("courses.persistence", row.try_get("persistence")?)?,
        outside: flag(row, "outside")?,
        spice: flag(row, "spice")?,
        deleting: flag(row, "deleting")?,
        created: row.try_get("created")?,
    })
}

fn member(row: &sqlx::any::AnyRow) -> Result<Member> {
    Ok(Member {
        user: parse("members.user_id", row.try_get("user_id")?)?,
        login: row.try_get("login")?,
        name: row.try_get("name")?,
        role: parse("members.role", row.try_get("role")?)?,
    })
}

/// One, also when it is being deleted.
pub async fn get(store: &Store, id: &CourseId) -> Result<Option<Course>> {
    sqlx::query("SELECT * FROM courses WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| course(&row))
        .transpose()
}

/// The same inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &CourseId) -> Result<Option<Course>> {
    sqlx::query("SELECT * FROM courses WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| course(&row))
        .transpose()
}

/// All that are not being deleted, by title.
pub async fn list(store: &Store) -> Result<Vec<Course>> {
    sqlx::query("SELECT * FROM courses WHERE deleting = 0 ORDER BY name, id")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(course)
        .collect()
}

/// All that are not being deleted, by title, with what a list of courses shows.
pub async fn lines(store: &Store) -> Result<Vec<CourseLine>> {
    sqlx::query(
        "SELECT c.*, i.name AS image_name,
           (SELECT COUNT(*) FROM members s WHERE s.course_id = c.id AND s.role = 'student') AS students,
           (SELECT COUNT(*) FROM desktops d WHERE d.course_id = c.id AND d.phase = 'running') AS running,
           r.id AS its_release, r.version AS its_version, r.manifest AS its_manifest
         FROM courses c
         JOIN images i ON i.id = c.image_id
         LEFT JOIN releases r ON r.id = COALESCE(c.release_id,
           (SELECT n.id FROM releases n WHERE n.image_id = c.image_id AND n.state = 'offered'
            ORDER BY n.version DESC LIMIT 1))
         WHERE c.deleting = 0 ORDER BY c.name, c.id",
    )
    .fetch_all(store.pool())
    .await?
    .iter()
    .map(|row| {
        let release = parse_opt("releases.id", row.try_get("its_release")?)?;
        Ok(CourseLine {
            course: course(row)?,
            image_name: row.try_get("image_name")?,
            students: row.try_get("students")?,
            running: row.try_get("running")?,
            release: match release {
                Some(id) => Some(CourseRelease {
                    id,
                    version: row.try_get("its_version")?,
                    manifest: row.try_get("its_manifest")?,
                }),
                None => None,
            },
        })
    })
    .collect()
}

/// Writes a course: a new one, or what may change of the one with its id.
pub async fn put(tx: &mut Tx, c: &Course) -> Result<()> {
    sqlx::query(
        "INSERT INTO courses (id, name, image_id, release_id, vcpus, memory_mib, persistence, outside, spice, deleting, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, release_id = excluded.release_id,
           vcpus = excluded.vcpus, memory_mib = excluded.memory_mib, persistence = excluded.persistence,
           outside = excluded.outside, spice = excluded.spice, deleting = excluded.deleting",
    )
    .bind(c.id.as_str())
    .bind(&c.name)
    .bind(c.image.as_str())
    .bind(c.release.clone().map(String::from))
    .bind(c.size.map(|s| i64::from(s.vcpus)))
    .bind(c.size.map(|s| i64::from(s.memory_mib)))
    .bind(word(&c.persistence))
    .bind(i16::from(c.outside))
    .bind(i16::from(c.spice))
    .bind(i16::from(c.deleting))
    .bind(c.created)
    .execute(tx.connection())
    .await?;
    tx.touch("course", &c.id);
    Ok(())
}

/// Whether any course or account waits for its last desktop to go.
pub async fn any_deleting(store: &Store) -> Result<bool> {
    let (count,): (i64,) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM courses WHERE deleting = 1)
              + (SELECT COUNT(*) FROM users WHERE deleting = 1)",
    )
    .fetch_one(store.pool())
    .await?;
    Ok(count > 0)
}

/// Deletes the rows of courses that are being deleted and have no desktop left. Answers how many.
pub async fn reap(tx: &mut Tx) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM courses WHERE deleting = 1
           AND NOT EXISTS (SELECT 1 FROM desktops WHERE desktops.course_id = courses.id) RETURNING id",
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &gone {
        tx.touch("course", row.try_get::<String, _>("id")?);
    }
    Ok(gone.len() as u64)
}

const MEMBERS: &str = "SELECT m.user_id, m.role, u.login, u.name FROM members m
    JOIN users u ON u.id = m.user_id WHERE m.course_id = $1 ORDER BY u.login";

/// Its roster, by sign-in name.
pub async fn members(store: &Store, id: &CourseId) -> Result<Vec<Member>> {
    sqlx::query(MEMBERS)
        .bind(id.as_str())
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(member)
        .collect()
}

/// The same inside a transaction.
pub async fn members_tx(tx: &mut Tx, id: &CourseId) -> Result<Vec<Member>> {
    sqlx::query(MEMBERS)
        .bind(id.as_str())
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(member)
        .collect()
}

/// Who is what in which course; courses that are being deleted have nobody.
pub async fn all_members(store: &Store) -> Result<Vec<(CourseId, UserId, MemberRole)>> {
    sqlx::query(
        "SELECT m.course_id, m.user_id, m.role FROM members m
         JOIN courses c ON c.id = m.course_id WHERE c.deleting = 0",
    )
    .fetch_all(store.pool())
    .await?
    .iter()
    .map(|row| {
        Ok((
            parse("members.course_id", row.try_get("course_id")?)?,
            parse("members.user_id", row.try_get("user_id")?)?,
            parse("members.role", row.try_get("role")?)?,
        ))
    })
    .collect()
}

/// Puts somebody on the roster, or changes the role there.
pub async fn put_member(tx: &mut Tx, id: &CourseId, user: &UserId, role: MemberRole) -> Result<()> {
    sqlx::query(
        "INSERT INTO members (course_id, user_id, role) VALUES ($1, $2, $3)
         ON CONFLICT (course_id, user_id) DO UPDATE SET role = excluded.role",
    )
    .bind(id.as_str())
    .bind(user.as_str())
    .bind(word(&role))
    .execute(tx.connection())
    .await?;
    tx.touch("course", id);
    Ok(())
}

/// Takes somebody off the roster. Answers whether there was one.
pub async fn remove_member(tx: &mut Tx, id: &CourseId, user: &UserId) -> Result<bool> {
    let done = sqlx::query("DELETE FROM members WHERE course_id = $1 AND user_id = $2")
        .bind(id.as_str())
        .bind(user.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("course", id);
    Ok(done.rows_affected() > 0)
}
