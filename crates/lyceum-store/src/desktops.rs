//! Desktops: what should be, what was assigned, what was last heard.

use crate::{Result, Store, Tx, parse, parse_opt, word};
use lyceum_model::{
    CourseId, DeltaId, Desired, DesktopId, DraftId, Generation, HostId, Hostname, MachineSize,
    OperationId, OverlayId, Persistence, Phase, ReleaseId, UnixMillis, UserId,
};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// Where the next start of a desktop comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Fork the release over an empty overlay.
    Fork,
    /// Resume the saved delta over the own overlay.
    Resume,
    /// Start from another desktop's captured delta.
    HandOut,
    /// Boot the own overlay, or an empty one.
    Cold,
}

/// What a desktop's row is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A person's desktop in a course.
    Course {
        /// Course.
        course: CourseId,
        /// Person.
        user: UserId,
    },
    /// The machine a draft is open in.
    Draft {
        /// Draft.
        draft: DraftId,
    },
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Desktop {
    /// Key.
    pub id: DesktopId,
    /// What it is for.
    pub owner: Owner,
    /// Name in its network.
    pub hostname: Hostname,
    /// Size.
    pub size: MachineSize,
    /// What is kept.
    pub persistence: Persistence,
    /// Whether it reaches the outside.
    pub outside: bool,

    /// What it should be.
    pub desired: Desired,
    /// Where its next start comes from.
    pub source: Source,
    /// The next start is as new: disk and saved memory are given up first.
    pub renew: bool,
    /// The captured delta to start from.
    pub hand_out_delta: Option<DeltaId>,
    /// The newest order about it.
    pub order: Option<OperationId>,
    /// When that was.
    pub ordered_at: UnixMillis,
    /// The reconciler stopped trying; the next order clears it.
    pub gave_up: bool,

    /// Counts every time it is given to a host.
    pub generation: Generation,
    /// The newest generation that any host was given for it, also for a move that failed.
    pub handed_out: Generation,
    /// The host that waits for it as that generation, while it still runs on `host`.
    pub moving_to: Option<HostId>,
    /// The release its overlay lies over, or will.
    pub release: Option<ReleaseId>,
    /// The host it is given to.
    pub host: Option<HostId>,
    /// Its overlay.
    pub overlay: Option<OverlayId>,
    /// Its saved memory, complete on the slow tier.
    pub delta: Option<DeltaId>,
    /// The name under which it is being saved.
    pub saving_delta: Option<DeltaId>,
    /// VM generation id of the running or suspended machine.
    pub vm_generation_id: String,
    /// `/etc/machine-id` of the running or suspended machine.
    pub machine_id: String,
    /// MAC address.
    pub mac: String,
    /// Planned IPv4 address.
    pub address: String,

    /// The generation that the following is about.
    pub observed_generation: Generation,
    /// What it is doing.
    pub phase: Phase,
    /// Step or failure.
    pub detail: String,
    /// How it was last started.
    pub started_by: Option<String>,
    /// Why it booted cold.
    pub cold_reason: Option<String>,
    /// Address the guest told.
    pub guest_address: Option<String>,
    /// SSH host key the guest told.
    pub ssh_host_key: Option<String>,
    /// From the request to usable.
    pub usable_ms: Option<i64>,
    /// Bytes of the saved delta.
    pub delta_bytes: Option<i64>,
    /// How long the last suspend took.
    pub suspend_ms: Option<i64>,
    /// Something its person should know.
    pub notice: Option<String>,
    /// Unasked ends since `restarts_since`.
    pub restarts: i64,
    /// Begin of the window in which they are counted.
    pub restarts_since: UnixMillis,
    /// When `phase` last changed.
    pub changed: UnixMillis,
    /// When the row was made.
    pub created: UnixMillis,
}

impl Desktop {
    /// A generation that no host was given yet.
    pub fn next_generation(&self) -> Generation {
        self.generation.max(self.handed_out).next()
    }

    /// Under a new generation: whatever was on its way for it is out of date.
    pub fn renew_generation(&mut self) {
        self.generation = self.next_generation();
        self.moving_to = None;
    }
}

fn desktop(row: &sqlx::any::AnyRow) -> Result<Desktop> {
    let kind: String = row.try_get("kind")?;
    let text = |column: &str| -> Result<Option<String>> { Ok(row.try_get(column)?) };
    let owner = match kind.as_str() {
        "course" => Owner::Course {
            course: parse(
                "desktops.course_id",
                &text("course_id")?.unwrap_or_default(),
            )?,
            user: parse("desktops.user_id", &text("user_id")?.unwrap_or_default())?,
        },
        "draft" => Owner::Draft {
            draft: parse("desktops.draft_id", &text("draft_id")?.unwrap_or_default())?,
        },
        _ => {
            return Err(crate::StoreError::Unreadable {
                what: "desktops.kind",
                value: kind,
            });
        }
    };
    let word_of = |column: &str| -> Result<String> { Ok(row.try_get::<String, _>(column)?) };
    let number = |column: &str| -> Result<i64> { Ok(row.try_get::<i64, _>(column)?) };
    // SQLite gives SMALLINT back as a 64-bit integer, PostgreSQL as a 16-bit one.
    let flag = |column: &str| -> Result<bool> { crate::flag(row, column) };
    Ok(Desktop {
        id: parse("desktops.id", &word_of("id")?)?,
        owner,
        hostname: parse("desktops.hostname", &word_of("hostname")?)?,
        size: MachineSize {
            vcpus: number("vcpus")? as u16,
            memory_mib: number("memory_mib")? as u32,
        },
        persistence: parse("desktops.persistence", &word_of("persistence")?)?,
        outside: flag("outside")?,
        desired: parse("desktops.desired", &word_of("desired")?)?,
        source: parse("desktops.source", &word_of("source")?)?,
        renew: flag("renew")?,
        hand_out_delta: parse_opt("desktops.hand_out_delta", text("hand_out_delta")?)?,
        order: parse_opt("desktops.order_id", text("order_id")?)?,
        ordered_at: number("ordered_at")?,
        gave_up: flag("gave_up")?,
        generation: Generation(number("generation")? as u64),
        release: parse_opt("desktops.release_id", text("release_id")?)?,
        host: parse_opt("desktops.host_id", text("host_id")?)?,
        overlay: parse_opt("desktops.overlay_id", text("overlay_id")?)?,
        delta: parse_opt("desktops.delta_id", text("delta_id")?)?,
        saving_delta: parse_opt("desktops.saving_delta", text("saving_delta")?)?,
        vm_generation_id: word_of("vm_generation_id")?,
        machine_id: word_of("machine_id")?,
        mac: word_of("mac")?,
        address: word_of("address")?,
        observed_generation: Generation(number("observed_generation")? as u64),
        phase: parse("desktops.phase", &word_of("phase")?)?,
        detail: word_of("detail")?,
        started_by: text("started_by")?,
        cold_reason: text("cold_reason")?,
        guest_address: text("guest_address")?,
        ssh_host_key: text("ssh_host_key")?,
        usable_ms: row.try_get("usable_ms")?,
        delta_bytes: row.try_get("delta_bytes")?,
        suspend_ms: row.try_get("suspend_ms")?,
        notice: text("notice")?,
        restarts: number("restarts")?,
        restarts_since: number("restarts_since")?,
        changed: number("changed")?,
        created: number("created")?,
        handed_out: Generation(number("handed_out")? as u64),
        moving_to: parse_opt("desktops.moving_to", text("moving_to")?)?,
    })
}

fn rows(rows: Vec<sqlx::any::AnyRow>) -> Result<Vec<Desktop>> {
    rows.iter().map(desktop).collect()
}

/// One.
pub async fn get(store: &Store, id: &DesktopId) -> Result<Option<Desktop>> {
    sqlx::query("SELECT * FROM desktops WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| desktop(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &DesktopId) -> Result<Option<Desktop>> {
    sqlx::query("SELECT * FROM desktops WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| desktop(&row))
        .transpose()
}

/// All.
pub async fn all(store: &Store) -> Result<Vec<Desktop>> {
    rows(
        sqlx::query("SELECT * FROM desktops ORDER BY created, id")
            .fetch_all(store.pool())
            .await?,
    )
}

/// All, inside a transaction.
pub async fn all_tx(tx: &mut Tx) -> Result<Vec<Desktop>> {
    rows(
        sqlx::query("SELECT * FROM desktops ORDER BY created, id")
            .fetch_all(tx.connection())
            .await?,
    )
}

/// All of a course.
pub async fn of_course(store: &Store, course: &CourseId) -> Result<Vec<Desktop>> {
    rows(
        sqlx::query("SELECT * FROM desktops WHERE course_id = $1 ORDER BY created, id")
            .bind(course.as_str())
            .fetch_all(store.pool())
            .await?,
    )
}

/// All of a person.
pub async fn of_user(store: &Store, user: &UserId) -> Result<Vec<Desktop>> {
    rows(
        sqlx::query("SELECT * FROM desktops WHERE user_id = $1 ORDER BY created, id")
            .bind(user.as_str())
            .fetch_all(store.pool())
            .await?,
    )
}

/// All whose newest order this is.
pub async fn of_order(store: &Store, order: &OperationId) -> Result<Vec<Desktop>> {
    rows(
        sqlx::query("SELECT * FROM desktops WHERE order_id = $1 ORDER BY created, id")
            .bind(order.as_str())
            .fetch_all(store.pool())
            .await?,
    )
}

/// The machine of a draft.
pub async fn of_draft(store: &Store, draft: &DraftId) -> Result<Option<Desktop>> {
    sqlx::query("SELECT * FROM desktops WHERE draft_id = $1")
        .bind(draft.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| desktop(&row))
        .transpose()
}

/// Writes a row whole: insert, or replace the one with its id.
pub async fn put(tx: &mut Tx, d: &Desktop) -> Result<()> {
    let (kind, course, user, draft) = match &d.owner {
        Owner::Course { course, user } => (
            "course",
            Some(course.to_string()),
            Some(user.to_string()),
            None,
        ),
        Owner::Draft { draft } => ("draft", None, None, Some(draft.to_string())),
    };
    let id = |v: Option<String>| v;
    sqlx::query(
        "INSERT INTO desktops (id, kind, course_id, user_id, draft_id, hostname, vcpus, memory_mib, persistence, outside,
           desired, source, renew, hand_out_delta, order_id, ordered_at, gave_up,
           generation, release_id, host_id, overlay_id, delta_id, saving_delta, vm_generation_id, machine_id, mac, address,
           observed_generation, phase, detail, started_by, cold_reason, guest_address, ssh_host_key, usable_ms,
           delta_bytes, suspend_ms, notice, restarts, restarts_since, changed, created,
           handed_out, moving_to)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23,$24,$25,$26,$27,
           $28,$29,$30,$31,$32,$33,$34,$35,$36,$37,$38,$39,$40,$41,$42,$43,$44)
         ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, vcpus = excluded.vcpus,
           memory_mib = excluded.memory_mib, persistence = excluded.persistence, outside = excluded.outside,
           desired = excluded.desired, source = excluded.source, renew = excluded.renew,
           hand_out_delta = excluded.hand_out_delta, order_id = excluded.order_id, ordered_at = excluded.ordered_at,
           gave_up = excluded.gave_up, generation = excluded.generation, release_id = excluded.release_id,
           host_id = excluded.host_id, overlay_id = excluded.overlay_id, delta_id = excluded.delta_id,
           saving_delta = excluded.saving_delta, vm_generation_id = excluded.vm_generation_id,
           machine_id = excluded.machine_id, mac = excluded.mac, address = excluded.address,
           observed_generation = excluded.observed_generation, phase = excluded.phase, detail = excluded.detail,
           started_by = excluded.started_by, cold_reason = excluded.cold_reason, guest_address = excluded.guest_address,
           ssh_host_key = excluded.ssh_host_key, usable_ms = excluded.usable_ms, delta_bytes = excluded.delta_bytes,
           suspend_ms = excluded.suspend_ms, notice = excluded.notice, restarts = excluded.restarts,
           restarts_since = excluded.restarts_since, changed = excluded.changed,
           handed_out = excluded.handed_out, moving_to = excluded.moving_to",
    )
    .bind(d.id.as_str())
    .bind(kind)
    .bind(course)
    .bind(user)
    .bind(draft)
    .bind(d.hostname.as_str())
    .bind(i64::from(d.size.vcpus))
    .bind(i64::from(d.size.memory_mib))
    .bind(word(&d.persistence))
    .bind(i16::from(d.outside))
    .bind(word(&d.desired))
    .bind(word(&d.source))
    .bind(i16::from(d.renew))
    .bind(id(d.hand_out_delta.clone().map(String::from)))
    .bind(id(d.order.clone().map(String::from)))
    .bind(d.ordered_at)
    .bind(i16::from(d.gave_up))
    .bind(d.generation.0 as i64)
    .bind(id(d.release.clone().map(String::from)))
    .bind(id(d.host.clone().map(String::from)))
    .bind(id(d.overlay.clone().map(String::from)))
    .bind(id(d.delta.clone().map(String::from)))
    .bind(id(d.saving_delta.clone().map(String::from)))
    .bind(&d.vm_generation_id)
    .bind(&d.machine_id)
    .bind(&d.mac)
    .bind(&d.address)
    .bind(d.observed_generation.0 as i64)
    .bind(word(&d.phase))
    .bind(&d.detail)
    .bind(d.started_by.clone())
    .bind(d.cold_reason.clone())
    .bind(d.guest_address.clone())
    .bind(d.ssh_host_key.clone())
    .bind(d.usable_ms)
    .bind(d.delta_bytes)
    .bind(d.suspend_ms)
    .bind(d.notice.clone())
    .bind(d.restarts)
    .bind(d.restarts_since)
    .bind(d.changed)
    .bind(d.created)
    .bind(d.handed_out.0 as i64)
    .bind(id(d.moving_to.clone().map(String::from)))
    .execute(tx.connection())
    .await?;
    tx.touch("desktop", &d.id);
    Ok(())
}

/// Gone.
pub async fn delete(tx: &mut Tx, id: &DesktopId) -> Result<()> {
    crate::restore_points::forget_desktop(tx, id).await?;
    for sql in [
        "DELETE FROM placements WHERE desktop_id = $1",
        "DELETE FROM desktops WHERE id = $1",
    ] {
        sqlx::query(sql)
            .bind(id.as_str())
            .execute(tx.connection())
            .await?;
    }
    tx.touch("desktop", id);
    Ok(())
}

/// A placement decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Which desktop.
    pub desktop: DesktopId,
    /// When.
    pub at: UnixMillis,
    /// The host; `None`: refused.
    pub host: Option<HostId>,
    /// Why.
    pub reason: String,
    /// JSON of what was known.
    pub snapshot: String,
}

/// Records a decision; of each desktop the newest 50 are kept.
pub async fn record_placement(tx: &mut Tx, p: &Placement) -> Result<()> {
    sqlx::query(
        "INSERT INTO placements (id, desktop_id, at, host_id, reason, snapshot) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(OperationId::new().as_str())
    .bind(p.desktop.as_str())
    .bind(p.at)
    .bind(p.host.as_ref().map(|h| h.as_str().to_owned()))
    .bind(&p.reason)
    .bind(&p.snapshot)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "DELETE FROM placements WHERE desktop_id = $1 AND id NOT IN
           (SELECT id FROM placements WHERE desktop_id = $1 ORDER BY at DESC, id DESC LIMIT 50)",
    )
    .bind(p.desktop.as_str())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Decisions about a desktop, newest first.
pub async fn placements(store: &Store, id: &DesktopId) -> Result<Vec<Placement>> {
    sqlx::query("SELECT * FROM placements WHERE desktop_id = $1 ORDER BY at DESC, id DESC")
        .bind(id.as_str())
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| {
            Ok(Placement {
                desktop: id.clone(),
                at: row.try_get("at")?,
                host: parse_opt("placements.host_id", row.try_get("host_id")?)?,
                reason: row.try_get("reason")?,
                snapshot: row.try_get("snapshot")?,
            })
        })
        .collect()
}

/// Why a course has no release to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// None was sealed, or none of them is offered.
    Never,
    /// There would be one, but for damage.
    Damaged,
    /// The pinned one is damaged.
    PinnedDamaged,
}

/// What a course says about the start of its desktops.
#[derive(Debug, Clone, PartialEq)]
pub struct CourseForStart {
    /// Title.
    pub name: String,
    /// The release of the next start with its manifest's JSON: the pinned one, or the newest offered one.
    pub release: Option<(ReleaseId, String)>,
    /// Why there is none, when there is none.
    pub missing: Missing,
    /// Size, when the course sets one.
    pub size: Option<MachineSize>,
    /// What is kept.
    pub persistence: Persistence,
    /// Whether desktops reach the outside.
    pub outside: bool,
}

/// See [`CourseForStart`]. A damaged release is never given.
pub async fn course_for_start(store: &Store, id: &CourseId) -> Result<Option<CourseForStart>> {
    let Some(row) = sqlx::query("SELECT * FROM courses WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
    else {
        return Ok(None);
    };
    let pinned: Option<String> = row.try_get("release_id")?;
    let image: String = row.try_get("image_id")?;
    let pins = pinned.is_some();
    let release = match pinned {
        Some(release) => {
            sqlx::query("SELECT id, manifest FROM releases WHERE id = $1 AND state <> 'damaged'")
                .bind(release)
        }
        None => sqlx::query(
            "SELECT id, manifest FROM releases WHERE image_id = $1 AND state = 'offered'
             ORDER BY version DESC LIMIT 1",
        )
        .bind(image.clone()),
    }
    .fetch_optional(store.pool())
    .await?
    .map(|r| -> Result<_> {
        Ok((
            parse("releases.id", &r.try_get::<String, _>("id")?)?,
            r.try_get("manifest")?,
        ))
    })
    .transpose()?;
    let missing = match (&release, pins) {
        (Some(_), _) => Missing::Never,
        (None, true) => Missing::PinnedDamaged,
        (None, false) => {
            let damaged = sqlx::query(
                "SELECT id FROM releases WHERE image_id = $1 AND state = 'damaged' LIMIT 1",
            )
            .bind(image)
            .fetch_optional(store.pool())
            .await?;
            match damaged {
                Some(_) => Missing::Damaged,
                None => Missing::Never,
            }
        }
    };
    let (vcpus, memory): (Option<i64>, Option<i64>) =
        (row.try_get("vcpus")?, row.try_get("memory_mib")?);
    Ok(Some(CourseForStart {
        missing,
        name: row.try_get("name")?,
        release,
        size: vcpus.zip(memory).map(|(v, m)| MachineSize {
            vcpus: v as u16,
            memory_mib: m as u32,
        }),
        persistence: parse(
            "courses.persistence",
            &row.try_get::<String, _>("persistence")?,
        )?,
        outside: crate::flag(&row, "outside")?,
    }))
}

/// Whether a draft has an installation ISO in its drive.
pub async fn draft_has_iso(store: &Store, draft: &DraftId) -> Result<bool> {
    let row = sqlx::query("SELECT iso FROM drafts WHERE id = $1")
        .bind(draft.as_str())
        .fetch_optional(store.pool())
        .await?;
    row.map_or(Ok(false), |row| crate::flag(&row, "iso"))
}

/// The names that belong to a desktop: its person's and its course's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The person's name.
    pub user: String,
    /// The course's title.
    pub course: String,
}

/// Which desktops [`names`] is about.
#[derive(Debug, Clone, Copy)]
pub enum Filter<'a> {
    /// All.
    All,
    /// One.
    One(&'a DesktopId),
    /// A person's.
    User(&'a UserId),
    /// A course's.
    Course(&'a CourseId),
}

/// Names by desktop; drafts have none.
pub async fn names(
    store: &Store,
    filter: Filter<'_>,
) -> Result<std::collections::HashMap<DesktopId, Names>> {
    const ALL: &str = "SELECT d.id AS id, u.name AS user_name, c.name AS course_name FROM desktops d
        JOIN users u ON u.id = d.user_id JOIN courses c ON c.id = d.course_id WHERE d.kind = 'course'";
    let sql = match filter {
        Filter::All => ALL.to_owned(),
        Filter::One(_) => format!("{ALL} AND d.id = $1"),
        Filter::User(_) => format!("{ALL} AND d.user_id = $1"),
        Filter::Course(_) => format!("{ALL} AND d.course_id = $1"),
    };
    let query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let query = match filter {
        Filter::All => query,
        Filter::One(id) => query.bind(id.as_str().to_owned()),
        Filter::User(id) => query.bind(id.as_str().to_owned()),
        Filter::Course(id) => query.bind(id.as_str().to_owned()),
    };
    query
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| {
            Ok((
                parse("desktops.id", &row.try_get::<String, _>("id")?)?,
                Names {
                    user: row.try_get("user_name")?,
                    course: row.try_get("course_name")?,
                },
            ))
        })
        .collect()
}

/// Everybody on a course's roster with this role: id, sign-in name, name.
pub async fn roster(
    store: &Store,
    course: &CourseId,
    role: &str,
) -> Result<Vec<(UserId, String, String)>> {
    sqlx::query(
        "SELECT u.id AS id, u.login AS login, u.name AS name FROM members m JOIN users u ON u.id = m.user_id
         WHERE m.course_id = $1 AND m.role = $2 ORDER BY u.login",
    )
    .bind(course.as_str())
    .bind(role)
    .fetch_all(store.pool())
    .await?
    .iter()
    .map(|row| {
        Ok((
            parse("users.id", &row.try_get::<String, _>("id")?)?,
            row.try_get("login")?,
            row.try_get("name")?,
        ))
    })
    .collect()
}
