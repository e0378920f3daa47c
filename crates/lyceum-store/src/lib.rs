//! What should be, and what was last heard: the classroom's one store, on SQLite
//! or PostgreSQL, written once for both.
//!
//! - One file per resource; functions take a [`Store`] for a single statement or
//!   a [`Tx`] when they are part of a larger change.
//! - SQL is plain: `TEXT`, `BIGINT`, `SMALLINT`, `DOUBLE PRECISION` and `$1`.
//! - Every change is announced on [`Store::changes`] after its commit. That is a hint to
//!   look again, never the truth: a listener that lags reads the store anew.
//! - Transactions that may write run one at a time: on SQLite they take the write lock at `BEGIN` (a read
//!   that turns into a write half-way would fail under load), on PostgreSQL a lock of the database's
//!   own, so that what was read is still so when it is written, whichever controller writes.

pub mod agents;
pub mod audit;
pub mod courses;
pub mod desktops;
pub mod drafts;
pub mod energy;
pub mod images;
pub mod moves;
pub mod networks;
pub mod one_time;
pub mod operations;
pub mod pins;
pub mod plans;
pub mod power;
pub mod releases;
pub mod restore_points;
pub mod samples;
pub mod sessions;
pub mod settings;
pub mod timetable;
pub mod users;

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyPool, AssertSqlSafe, Executor};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, broadcast};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or is not there.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A row holds what no version of Lyceum writes.
    #[error(
        "the store holds {what} = {value:?}, which this version does not know: was it written by a newer one?"
    )]
    Unreadable {
        /// Table and column.
        what: &'static str,
        /// What stands there.
        value: String,
    },
    /// Something with that name or key is there already.
    #[error("{0}")]
    Conflict(String),
}

/// Shorthand.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Something in the store changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Table, in the singular: `desktop`, `course`, `operation`, ...
    pub kind: &'static str,
    /// Key of the row.
    pub id: String,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    sqlite: bool,
    write_lock: Arc<Mutex<()>>,
    changes: broadcast::Sender<Change>,
}

/// A transaction that may write. Nothing is changed or announced before [`Tx::commit`].
pub struct Tx {
    inner: sqlx::Transaction<'static, Any>,
    changed: Vec<Change>,
    changes: broadcast::Sender<Change>,
    // Held until the transaction ends; None on PostgreSQL.
    _lock: Option<OwnedMutexGuard<()>>,
}

/// Name of the lock that writers hold on PostgreSQL; `lyceum` in ASCII.
const WRITE_LOCK: i64 = 0x6c79_6365_756d;

const SCHEMA: &[(i64, &str)] = &[
    (1, include_str!("schema.sql")),
    (2, include_str!("schema-2.sql")),
    (3, include_str!("schema-3.sql")),
    (4, include_str!("schema-4.sql")),
    (5, include_str!("schema-5.sql")),
    (6, include_str!("schema-6.sql")),
    (7, include_str!("schema-7.sql")),
    (8, include_str!("schema-8.sql")),
    (9, include_str!("schema-9.sql")),
];

impl Store {
    /// Opens `sqlite:PATH` (made when missing) or `postgres://...` and brings its tables up to date.
    pub async fn open(url: &str) -> Result<Store> {
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        let mut url = url.to_owned();
        if sqlite && !url.contains('?') {
            url.push_str("?mode=rwc");
        }
        // An in-memory database exists once per connection.
        let memory = sqlite && url.contains(":memory:");
        let pool = AnyPoolOptions::new()
            .max_connections(if memory { 1 } else { 8 })
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if sqlite {
                        for pragma in [
                            "PRAGMA journal_mode=WAL",
                            // What was acknowledged survives a power cut.
                            "PRAGMA synchronous=FULL",
                            "PRAGMA foreign_keys=ON",
                            "PRAGMA busy_timeout=10000",
                        ] {
                            connection.execute(pragma).await?;
                        }
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await?;
        let (changes, _) = broadcast::channel(4096);
        let store = Store {
            pool,
            sqlite,
            write_lock: Arc::default(),
            changes,
        };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<()> {
        let mut tx = self.begin_write().await?;
        sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
            .execute(tx.connection())
            .await?;
        let (have,): (Option<i64>,) = sqlx::query_as("SELECT MAX(version) FROM schema_version")
            .fetch_one(tx.connection())
            .await?;
        let have = have.unwrap_or(0);
        if let Some((newest, _)) = SCHEMA.last()
            && have > *newest
        {
            return Err(StoreError::Unreadable {
                what: "schema_version.version",
                value: have.to_string(),
            });
        }
        for (version, text) in SCHEMA.iter().filter(|(version, _)| *version > have) {
            let text: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"))
                .collect::<Vec<_>>()
                .join("\n");
            for statement in text.split(";\n").map(str::trim).filter(|s| !s.is_empty()) {
                sqlx::query(AssertSqlSafe(statement.trim_end_matches(';').to_owned()))
                    .execute(tx.connection())
                    .await?;
            }
            sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
                .bind(*version)
                .execute(tx.connection())
                .await?;
        }
        tx.commit().await
    }

    /// Whether other processes may change it too, which [`changes`](Self::changes) does not tell of.
    pub fn is_shared(&self) -> bool {
        !self.sqlite
    }

    /// For reading.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Changes as they are committed.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Begins a transaction that may write.
    pub async fn begin_write(&self) -> Result<Tx> {
        let (lock, begin) = if self.sqlite {
            (
                Some(self.write_lock.clone().lock_owned().await),
                "BEGIN IMMEDIATE",
            )
        } else {
            (None, "BEGIN")
        };
        let mut inner = self.pool.begin_with(begin).await?;
        if !self.sqlite {
            // Given up at the transaction's end, however that comes.
            sqlx::query("SELECT 1 FROM (SELECT pg_advisory_xact_lock($1)) AS writer")
                .bind(WRITE_LOCK)
                .execute(&mut *inner)
                .await?;
        }
        Ok(Tx {
            inner,
            changed: Vec::new(),
            changes: self.changes.clone(),
            _lock: lock,
        })
    }
}

impl Tx {
    /// The connection, for statements of this transaction.
    pub fn connection(&mut self) -> &mut sqlx::AnyConnection {
        &mut self.inner
    }

    /// Notes that a row changed, to be announced at commit.
    pub fn touch(&mut self, kind: &'static str, id: impl ToString) {
        let change = Change {
            kind,
            id: id.to_string(),
        };
        if !self.changed.contains(&change) {
            self.changed.push(change);
        }
    }

    /// Makes it so, and announces it.
    pub async fn commit(self) -> Result<()> {
        self.inner.commit().await?;
        for change in self.changed {
            // No listener is fine.
            let _ = self.changes.send(change);
        }
        Ok(())
    }
}

/// Turns a unique-key violation into words; other errors stay what they are.
pub fn conflict(error: sqlx::Error, message: impl Into<String>) -> StoreError {
    match &error {
        sqlx::Error::Database(e) if e.is_unique_violation() => StoreError::Conflict(message.into()),
        _ => StoreError::Database(error),
    }
}

/// Writes a unit enum as the word serde gives it.
pub fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

/// Reads a word written by [`word`], or an id.
pub fn parse<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| {
        StoreError::Unreadable {
            what,
            value: text.to_owned(),
        }
    })
}

/// [`parse`] for columns that may be NULL.
pub fn parse_opt<T: serde::de::DeserializeOwned>(
    what: &'static str,
    text: Option<String>,
) -> Result<Option<T>> {
    text.as_deref().map(|t| parse(what, t)).transpose()
}

/// Reads a `SMALLINT` that holds 0 or 1. SQLite gives it back as a 64-bit
/// integer, PostgreSQL as a 16-bit one.
pub fn flag(row: &sqlx::any::AnyRow, column: &str) -> Result<bool> {
    use sqlx::Row;
    match row.try_get::<i64, _>(column) {
        Ok(value) => Ok(value != 0),
        Err(_) => Ok(row.try_get::<i16, _>(column)? != 0),
    }
}
