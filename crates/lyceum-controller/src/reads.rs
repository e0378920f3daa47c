//! Courses, rosters and desktops as they are, kept in memory: a class that opens the page at
//! once asks the same of the store two hundred times.
//!
//! What is kept is dropped by the store's announcements, which come before a transaction's
//! `commit` returns, and every look here first takes in what was announced: a request that
//! begins after the answer to a change sees that change. Other controllers on one PostgreSQL do
//! not hear our announcements, hence the short life there. Decisions about changes are made in
//! their transactions, never upon this.

use crate::error::ApiFailure;
use lyceum_model::{CourseId, DesktopId, UserId};
use lyceum_store::courses::{self, CourseLine, MemberRole};
use lyceum_store::desktops::{self, Desktop, Filter, Names};
use lyceum_store::{Change, Store};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

/// How long something is kept when nothing was announced.
const LIFE: Duration = Duration::from_secs(60);
/// The same when other controllers may change the store.
const SHARED_LIFE: Duration = Duration::from_secs(1);

/// Every desktop, with the names of its person and course.
pub struct Desktops {
    /// The rows, drafts' machines among them, oldest first.
    pub rows: Vec<Desktop>,
    /// Names by desktop; drafts' machines have none.
    pub names: HashMap<DesktopId, Names>,
    /// Those that plans leave where they are.
    pub pinned: HashSet<DesktopId>,
}

/// Who is what in which course; courses that are being deleted have nobody.
pub type Rosters = HashMap<CourseId, HashMap<UserId, MemberRole>>;

struct Slot<T> {
    // Counts announcements, to tell whether what was read meanwhile is still true.
    epoch: u64,
    value: Option<(Instant, Arc<T>)>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot {
            epoch: 0,
            value: None,
        }
    }
}

impl<T> Slot<T> {
    fn drop_it(&mut self) {
        self.epoch += 1;
        self.value = None;
    }
}

struct Inner {
    changes: Receiver<Change>,
    desktops: Slot<Desktops>,
    rosters: Slot<Rosters>,
    courses: Slot<Vec<CourseLine>>,
}

/// See the module.
pub struct Reads {
    store: Store,
    inner: Mutex<Inner>,
    // One reads anew, the others wait for it: after a change a whole class asks.
    reading: tokio::sync::Mutex<()>,
    life: Duration,
}

impl Reads {
    /// Listens to the store's changes from now on.
    pub fn new(store: &Store) -> Reads {
        Reads {
            store: store.clone(),
            inner: Mutex::new(Inner {
                changes: store.changes(),
                desktops: Slot::default(),
                rosters: Slot::default(),
                courses: Slot::default(),
            }),
            reading: tokio::sync::Mutex::new(()),
            life: if store.is_shared() { SHARED_LIFE } else { LIFE },
        }
    }

    /// Every desktop.
    pub async fn desktops(&self) -> Result<Arc<Desktops>, ApiFailure> {
        self.get(|inner| &mut inner.desktops, async {
            Ok(Desktops {
                rows: desktops::all(&self.store).await?,
                names: desktops::names(&self.store, Filter::All).await?,
                pinned: lyceum_store::pins::all(&self.store).await?,
            })
        })
        .await
    }

    /// Who is what in which course.
    pub async fn rosters(&self) -> Result<Arc<Rosters>, ApiFailure> {
        self.get(|inner| &mut inner.rosters, async {
            let mut all = Rosters::new();
            for (course, user, role) in courses::all_members(&self.store).await? {
                all.entry(course).or_default().insert(user, role);
            }
            Ok(all)
        })
        .await
    }

    /// Every course that is not being deleted, by title. `role` is nobody's: see [`rosters`](Self::rosters).
    pub async fn courses(&self) -> Result<Arc<Vec<CourseLine>>, ApiFailure> {
        self.get(|inner| &mut inner.courses, async {
            Ok(courses::lines(&self.store).await?)
        })
        .await
    }

    async fn get<T>(
        &self,
        slot: fn(&mut Inner) -> &mut Slot<T>,
        read: impl Future<Output = Result<T, ApiFailure>>,
    ) -> Result<Arc<T>, ApiFailure> {
        if let Ok(kept) = self.kept(slot) {
            return Ok(kept);
        }
        let _one = self.reading.lock().await;
        let epoch = match self.kept(slot) {
            Ok(kept) => return Ok(kept),
            Err(epoch) => epoch,
        };
        let value = Arc::new(read.await?);
        let mut inner = self.current();
        let slot = slot(&mut inner);
        if slot.epoch == epoch {
            slot.value = Some((Instant::now(), value.clone()));
        }
        Ok(value)
    }

    /// What is kept, or the epoch at which it has to be read.
    fn kept<T>(&self, slot: fn(&mut Inner) -> &mut Slot<T>) -> Result<Arc<T>, u64> {
        let mut inner = self.current();
        let slot = slot(&mut inner);
        match &slot.value {
            Some((read, value)) if read.elapsed() < self.life => Ok(value.clone()),
            _ => Err(slot.epoch),
        }
    }

    /// Takes in what was announced.
    fn current(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock only means that another thread panicked while it held copies.
        let mut guard = self.inner.lock().unwrap_or_else(|p| p.into_inner());
        let inner = &mut *guard;
        loop {
            match inner.changes.try_recv().map(|change| change.kind) {
                Ok("desktop") => {
                    inner.desktops.drop_it();
                    inner.courses.drop_it();
                }
                Ok("course" | "user") | Err(TryRecvError::Lagged(_)) => {
                    inner.desktops.drop_it();
                    inner.rosters.drop_it();
                    inner.courses.drop_it();
                }
                Ok("image" | "release") => inner.courses.drop_it(),
                Ok(_) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return guard,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_model::Persistence;
    use lyceum_store::courses::Course;
    use lyceum_store::images::{self, Image};
    use lyceum_store::users::{self, Role, User};

    /// Each answer after a commit tells of it, whoever else reads meanwhile.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_was_committed_is_seen_by_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("db").display());
        let store = Store::open(&url).await.unwrap();
        let reads = Arc::new(Reads::new(&store));
        let course: CourseId = "c".parse().unwrap();
        let user: UserId = "u".parse().unwrap();
        let mut tx = store.begin_write().await.unwrap();
        let image = Image {
            id: "i".parse().unwrap(),
            name: "i".into(),
            description: String::new(),
            created: 0,
        };
        images::insert(&mut tx, &image).await.unwrap();
        let row = Course {
            id: course.clone(),
            name: "c".into(),
            image: image.id,
            release: None,
            size: None,
            persistence: Persistence::Throwaway,
            outside: false,
            spice: false,
            deleting: false,
            created: 0,
        };
        courses::put(&mut tx, &row).await.unwrap();
        let person = User {
            id: user.clone(),
            login: "u".into(),
            name: "u".into(),
            role: Role::Student,
            source: "local".into(),
            password_hash: None,
            disabled: false,
            deleting: false,
            created: 0,
        };
        users::insert(&mut tx, &person).await.unwrap();
        tx.commit().await.unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (reads, stop) = (reads.clone(), stop.clone());
            others.spawn(async move {
                while !stop.is_cancelled() {
                    reads.rosters().await.unwrap();
                    reads.courses().await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
        }
        for round in 0..100 {
            let mut tx = store.begin_write().await.unwrap();
            let there = round % 2 == 0;
            if there {
                courses::put_member(&mut tx, &course, &user, MemberRole::Student)
                    .await
                    .unwrap();
            } else {
                courses::remove_member(&mut tx, &course, &user)
                    .await
                    .unwrap();
            }
            tx.commit().await.unwrap();
            let rosters = reads.rosters().await.unwrap();
            let seen = rosters.get(&course).is_some_and(|c| c.contains_key(&user));
            assert_eq!(seen, there, "round {round}");
            let students = reads.courses().await.unwrap()[0].students;
            assert_eq!(students, i64::from(there), "round {round}");
        }
        stop.cancel();
        while let Some(other) = others.join_next().await {
            other.unwrap();
        }
    }
}
