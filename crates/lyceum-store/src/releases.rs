//! Releases: sealed versions of golden images, and who uses them.

use crate::{Result, Store, StoreError, Tx, conflict, parse, parse_opt, word};
use lyceum_model::{CourseId, DesktopId, DraftId, ImageId, ReleaseId, ReleaseManifest, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row};

/// Where a release is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// New desktops may start from it.
    Offered,
    /// No new courses; courses that pin it go on.
    Retired,
    /// Its bytes are not what they were; nothing starts from it.
    Damaged,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Hash of its manifest.
    pub id: ReleaseId,
    /// Of which image.
    pub image: ImageId,
    /// 1, 2, 3, ... within the image.
    pub version: u32,
    /// State.
    pub state: State,
    /// What it consists of.
    pub manifest: ReleaseManifest,
    /// Bytes on the fast tier.
    pub bytes_on_disk: u64,
    /// Note of the person who sealed it.
    pub note: String,
    /// Sign-in name of that person.
    pub sealed_by: String,
    /// When.
    pub sealed_at: UnixMillis,
    /// Which file is damaged and how, in words.
    pub damage: Option<String>,
}

fn release(row: &sqlx::any::AnyRow) -> Result<Release> {
    let manifest: String = row.try_get("manifest")?;
    Ok(Release {
        id: parse("releases.id", row.try_get("id")?)?,
        image: parse("releases.image_id", row.try_get("image_id")?)?,
        version: row.try_get::<i64, _>("version")? as u32,
        state: parse("releases.state", row.try_get("state")?)?,
        manifest: serde_json::from_str(&manifest).map_err(|_| StoreError::Unreadable {
            what: "releases.manifest",
            value: manifest.chars().take(200).collect(),
        })?,
        bytes_on_disk: row.try_get::<i64, _>("bytes_on_disk")? as u64,
        note: row.try_get("note")?,
        sealed_by: row.try_get("sealed_by")?,
        sealed_at: row.try_get("sealed_at")?,
        damage: row.try_get("damage")?,
    })
}

fn rows(rows: Vec<sqlx::any::AnyRow>) -> Result<Vec<Release>> {
    rows.iter().map(release).collect()
}

/// All, newest first within their image.
pub async fn all(store: &Store) -> Result<Vec<Release>> {
    rows(
        sqlx::query("SELECT * FROM releases ORDER BY image_id, version DESC")
            .fetch_all(store.pool())
            .await?,
    )
}

/// Those of an image, newest first.
pub async fn of_image(store: &Store, image: &ImageId) -> Result<Vec<Release>> {
    rows(
        sqlx::query("SELECT * FROM releases WHERE image_id = $1 ORDER BY version DESC")
            .bind(image.as_str())
            .fetch_all(store.pool())
            .await?,
    )
}

/// The same inside a transaction.
pub async fn of_image_tx(tx: &mut Tx, image: &ImageId) -> Result<Vec<Release>> {
    rows(
        sqlx::query("SELECT * FROM releases WHERE image_id = $1 ORDER BY version DESC")
            .bind(image.as_str())
            .fetch_all(tx.connection())
            .await?,
    )
}

/// One.
pub async fn get(store: &Store, id: &ReleaseId) -> Result<Option<Release>> {
    sqlx::query("SELECT * FROM releases WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| release(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &ReleaseId) -> Result<Option<Release>> {
    sqlx::query("SELECT * FROM releases WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| release(&row))
        .transpose()
}

const NEWEST_OFFERED: &str = "SELECT * FROM releases WHERE image_id = $1 AND state = 'offered'
     ORDER BY version DESC LIMIT 1";

/// The one that courses start from which follow the image's newest.
pub async fn newest_offered(store: &Store, image: &ImageId) -> Result<Option<Release>> {
    sqlx::query(NEWEST_OFFERED)
        .bind(image.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| release(&row))
        .transpose()
}

/// The same inside a transaction.
pub async fn newest_offered_tx(tx: &mut Tx, image: &ImageId) -> Result<Option<Release>> {
    sqlx::query(NEWEST_OFFERED)
        .bind(image.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| release(&row))
        .transpose()
}

/// What is known of a new release before it has a version.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRelease<'a> {
    /// Hash of its manifest.
    pub id: &'a ReleaseId,
    /// Of which image.
    pub image: &'a ImageId,
    /// What it consists of.
    pub manifest: &'a ReleaseManifest,
    /// Bytes on the fast tier.
    pub bytes_on_disk: u64,
    /// Note of the person who sealed it.
    pub note: &'a str,
    /// Sign-in name of that person.
    pub sealed_by: &'a str,
    /// When.
    pub sealed_at: UnixMillis,
}

/// Offers a new release as the image's next version and answers that. Versions of deleted
/// releases that were the newest come again. `Conflict` when it is there already.
pub async fn insert(tx: &mut Tx, new: &NewRelease<'_>) -> Result<u32> {
    let (newest,): (Option<i64>,) =
        sqlx::query_as("SELECT MAX(version) FROM releases WHERE image_id = $1")
            .bind(new.image.as_str())
            .fetch_one(tx.connection())
            .await?;
    let version = newest.unwrap_or(0) + 1;
    let manifest = serde_json::to_string(new.manifest).map_err(|e| StoreError::Unreadable {
        what: "releases.manifest",
        value: e.to_string(),
    })?;
    sqlx::query(
        "INSERT INTO releases (id, image_id, version, state, manifest, bytes_on_disk, note, sealed_by, sealed_at)
         VALUES ($1, $2, $3, 'offered', $4, $5, $6, $7, $8)",
    )
    .bind(new.id.as_str())
    .bind(new.image.as_str())
    .bind(version)
    .bind(manifest)
    .bind(new.bytes_on_disk as i64)
    .bind(new.note)
    .bind(new.sealed_by)
    .bind(new.sealed_at)
    .execute(tx.connection())
    .await
    .map_err(|e| conflict(e, format!("release {} is there already", new.id)))?;
    tx.touch("release", new.id);
    tx.touch("image", new.image);
    Ok(version as u32)
}

/// Another state. `damage` says what is damaged; `None` otherwise. Answers whether it is there.
pub async fn set_state(
    tx: &mut Tx,
    id: &ReleaseId,
    state: State,
    damage: Option<&str>,
) -> Result<bool> {
    let done = sqlx::query("UPDATE releases SET state = $2, damage = $3 WHERE id = $1")
        .bind(id.as_str())
        .bind(word(&state))
        .bind(damage.map(str::to_owned))
        .execute(tx.connection())
        .await?;
    tx.touch("release", id);
    Ok(done.rows_affected() > 0)
}

/// Gone.
pub async fn delete(tx: &mut Tx, id: &ReleaseId) -> Result<()> {
    sqlx::query("DELETE FROM releases WHERE id = $1")
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("release", id);
    Ok(())
}

/// Who uses a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// A course that pins it.
    Pins {
        /// Which.
        course: CourseId,
        /// Its name.
        name: String,
    },
    /// A course that follows the image's newest offered release, which it is.
    Follows {
        /// Which.
        course: CourseId,
        /// Its name.
        name: String,
    },
    /// A desktop whose disk lies over it.
    Desktop {
        /// Which.
        desktop: DesktopId,
        /// Whose, and in which course.
        of: Option<(String, String)>,
    },
    /// Restore points of a desktop, made over it.
    Points {
        /// Of which desktop.
        desktop: DesktopId,
        /// Whose, and in which course.
        of: Option<(String, String)>,
    },
    /// A draft that is being copied from it.
    Draft {
        /// Which.
        draft: DraftId,
        /// Name of the draft's image.
        image: String,
    },
}

/// Users of every release that has any.
pub async fn users(store: &Store) -> Result<Vec<(ReleaseId, User)>> {
    users_on(&mut *store.pool().acquire().await?).await
}

/// The same inside a transaction, for decisions.
pub async fn users_tx(tx: &mut Tx) -> Result<Vec<(ReleaseId, User)>> {
    users_on(tx.connection()).await
}

async fn users_on(db: &mut AnyConnection) -> Result<Vec<(ReleaseId, User)>> {
    let mut out = Vec::new();
    // A course uses what it pins, or else the newest offered release of its image.
    let courses = sqlx::query(
        "SELECT c.id, c.name, c.release_id AS pinned, (SELECT r.id FROM releases r
           WHERE r.image_id = c.image_id AND r.state = 'offered' ORDER BY r.version DESC LIMIT 1) AS newest
         FROM courses c ORDER BY c.name, c.id",
    )
    .fetch_all(&mut *db)
    .await?;
    for row in &courses {
        let course: CourseId = parse("courses.id", row.try_get("id")?)?;
        let name: String = row.try_get("name")?;
        let pinned: Option<ReleaseId> = parse_opt("courses.release_id", row.try_get("pinned")?)?;
        let newest: Option<ReleaseId> = parse_opt("releases.id", row.try_get("newest")?)?;
        match (pinned, newest) {
            (Some(release), _) => out.push((release, User::Pins { course, name })),
            (None, Some(release)) => out.push((release, User::Follows { course, name })),
            (None, None) => {}
        }
    }
    // A desktop of which nothing is left takes what its course says at its next start.
    let desktops = sqlx::query(
        "SELECT d.id, d.release_id, u.login, c.name FROM desktops d
         LEFT JOIN users u ON u.id = d.user_id LEFT JOIN courses c ON c.id = d.course_id
         WHERE d.release_id IS NOT NULL AND (d.host_id IS NOT NULL OR d.overlay_id IS NOT NULL
           OR d.delta_id IS NOT NULL OR d.saving_delta IS NOT NULL OR d.hand_out_delta IS NOT NULL
           OR d.desired IN ('running', 'suspended'))
         ORDER BY c.name, u.login, d.id",
    )
    .fetch_all(&mut *db)
    .await?;
    for row in &desktops {
        let login: Option<String> = row.try_get("login")?;
        let course: Option<String> = row.try_get("name")?;
        out.push((
            parse("desktops.release_id", row.try_get("release_id")?)?,
            User::Desktop {
                desktop: parse("desktops.id", row.try_get("id")?)?,
                of: login.zip(course),
            },
        ));
    }
    // What was kept of a desktop can only be brought back over the release it was made with.
    let points = sqlx::query(
        "SELECT DISTINCT p.desktop_id, p.release_id, u.login, c.name FROM restore_points p
         LEFT JOIN desktops d ON d.id = p.desktop_id LEFT JOIN users u ON u.id = d.user_id
         LEFT JOIN courses c ON c.id = p.course_id
         WHERE p.release_id IS NOT NULL AND p.state <> 'failed' ORDER BY c.name, u.login, p.desktop_id",
    )
    .fetch_all(&mut *db)
    .await?;
    for row in &points {
        let login: Option<String> = row.try_get("login")?;
        let course: Option<String> = row.try_get("name")?;
        out.push((
            parse("restore_points.release_id", row.try_get("release_id")?)?,
            User::Points {
                desktop: parse("restore_points.desktop_id", row.try_get("desktop_id")?)?,
                of: login.zip(course),
            },
        ));
    }
    let drafts = sqlx::query(
        "SELECT d.id, d.from_release, i.name FROM drafts d JOIN images i ON i.id = d.image_id
         WHERE d.from_release IS NOT NULL AND d.state = 'importing' ORDER BY i.name",
    )
    .fetch_all(&mut *db)
    .await?;
    for row in &drafts {
        out.push((
            parse("drafts.from_release", row.try_get("from_release")?)?,
            User::Draft {
                draft: parse("drafts.id", row.try_get("id")?)?,
                image: row.try_get("name")?,
            },
        ));
    }
    Ok(out)
}
