//! Clears up what of images is on the tiers and belongs to nobody.
//!
//! The rule:
//! - Rows are written before what belongs to them is made. So the inventory is taken first and the store
//!   read after it: what then has no row is left over from work that was undone, or from a
//!   request that came through late.
//! - Something is deleted only after it was left over in every look for [`GRACE`], a release for
//!   [`RELEASE_GRACE`]. Looks are remembered by the running controller only: its restart begins the wait anew.
//! - A release is left alone while any draft is at the step that makes one, since its name is not known
//!   before; and always while a desktop names it.
//! - A draft whose step can't be understood counts as being at every step.
//! - When the store has no image and no draft at all, nothing is touched: full tiers beside an empty store mean
//!   that the wrong store was opened.
//!
//! Overlays and deltas are the business of the desktops' reconcilers.

use super::engine::StepError;
use super::import::gone;
use super::work::{SealStep, Work};
use crate::app::App;
use lyceum_model::{DraftId, JobId, ReleaseId};
use lyceum_proto::storage::Inventory;
use lyceum_store::{desktops, drafts, images, releases, restore_points};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long something must have been left over.
pub const GRACE: Duration = Duration::from_secs(10 * 60);
/// The same for releases.
pub const RELEASE_GRACE: Duration = Duration::from_secs(60 * 60);

/// Something that belongs to nobody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Orphan {
    /// A release.
    Release(ReleaseId),
    /// A draft's disk.
    Draft(DraftId),
    /// A staging folder.
    Staging(DraftId),
    /// An upload.
    Upload(JobId),
}

impl Orphan {
    fn path(&self) -> String {
        match self {
            Orphan::Release(id) => format!("/v1/releases/{id}"),
            Orphan::Draft(id) => format!("/v1/drafts/{id}"),
            Orphan::Staging(id) => format!("/v1/staging/{id}"),
            Orphan::Upload(id) => format!("/v1/uploads/{id}"),
        }
    }

    fn grace(&self) -> Duration {
        match self {
            Orphan::Release(_) => RELEASE_GRACE,
            Orphan::Draft(_) | Orphan::Staging(_) | Orphan::Upload(_) => GRACE,
        }
    }
}

/// What the store knows.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// How many images there are.
    pub images: usize,
    /// Releases, and those that desktops name.
    pub releases: HashSet<ReleaseId>,
    /// Drafts with their work; `Err`: it has work that can't be understood.
    pub drafts: HashMap<DraftId, Result<Option<Work>, ()>>,
}

/// Looks again and again.
pub async fn run(app: &App) {
    let mut seen = HashMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(e) = look(app, &mut seen, Instant::now()).await {
            tracing::debug!("the tiers were not looked through: {e}");
        }
    }
}

/// One look. `seen`: since when something is left over.
pub async fn look(
    app: &App,
    seen: &mut HashMap<Orphan, Instant>,
    now: Instant,
) -> Result<(), StepError> {
    let storage = app.agents.storage().await?;
    let inventory: Inventory = storage.get("/v1/inventory").await?;
    let left = orphans(&inventory, &known(app).await?);
    seen.retain(|orphan, _| left.contains(orphan));
    for orphan in left {
        let since = *seen.entry(orphan.clone()).or_insert(now);
        if now.duration_since(since) < orphan.grace() {
            continue;
        }
        match gone(&storage, &orphan.path()).await {
            Ok(()) => tracing::info!("{} belonged to nobody and was deleted", orphan.path()),
            Err(e) => tracing::warn!(
                "{} belongs to nobody and could not be deleted: {e}",
                orphan.path()
            ),
        }
    }
    Ok(())
}

async fn known(app: &App) -> Result<Known, StepError> {
    let store = &app.store;
    let mut known = Known {
        images: images::all(store).await?.len(),
        ..Known::default()
    };
    // Drafts before releases: what is published in between is found in the one or the other.
    for draft in drafts::all(store).await? {
        let work = draft
            .work
            .as_deref()
            .map(Work::parse)
            .transpose()
            .map_err(|_| ());
        known.drafts.insert(draft.id, work);
    }
    known.releases.extend(
        desktops::all(store)
            .await?
            .into_iter()
            .filter_map(|d| d.release),
    );
    known.releases.extend(
        restore_points::all(store)
            .await?
            .into_iter()
            .filter_map(|p| p.release),
    );
    known
        .releases
        .extend(releases::all(store).await?.into_iter().map(|r| r.id));
    Ok(known)
}

/// What belongs to nobody: pure.
pub fn orphans(inventory: &Inventory, known: &Known) -> HashSet<Orphan> {
    let mut out = HashSet::new();
    if known.images == 0 && known.drafts.is_empty() {
        return out;
    }
    let mut jobs = HashSet::new();
    let mut published = HashSet::new();
    let (mut publishing, mut unclear) = (false, false);
    for work in known.drafts.values() {
        match work {
            Ok(Some(work)) => {
                jobs.extend(work.job());
                match work {
                    Work::Seal {
                        step: SealStep::Publish { .. },
                        ..
                    } => publishing = true,
                    Work::Seal {
                        step: SealStep::Record { published: p, .. },
                        ..
                    } => {
                        published.insert(&p.release);
                    }
                    Work::Seal {
                        step: SealStep::Close { release, .. },
                        ..
                    } => {
                        published.insert(release);
                    }
                    _ => {}
                }
            }
            Ok(None) => {}
            Err(()) => unclear = true,
        }
    }
    if !publishing && !unclear {
        out.extend(
            inventory
                .releases
                .iter()
                .filter(|id| !known.releases.contains(id) && !published.contains(id))
                .cloned()
                .map(Orphan::Release),
        );
    }
    if !unclear {
        out.extend(
            inventory
                .uploads
                .iter()
                .filter(|id| !jobs.contains(id))
                .cloned()
                .map(Orphan::Upload),
        );
    }
    out.extend(
        inventory
            .drafts
            .iter()
            .filter(|id| !known.drafts.contains_key(id))
            .cloned()
            .map(Orphan::Draft),
    );
    let may_stage = |id: &DraftId| match known.drafts.get(id) {
        None => false,
        Some(Ok(Some(Work::Seal { .. }))) | Some(Err(())) => true,
        Some(Ok(_)) => false,
    };
    out.extend(
        inventory
            .staging
            .iter()
            .filter(|id| !may_stage(id))
            .cloned()
            .map(Orphan::Staging),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drafts::work::SealTerms;
    use lyceum_model::MachineSize;
    use lyceum_proto::storage::PublishRequest;

    fn seal(step: SealStep) -> Result<Option<Work>, ()> {
        let order = SealTerms {
            size: MachineSize {
                vcpus: 1,
                memory_mib: 64,
            },
            note: String::new(),
            by: "t".into(),
            ready_timeout_ms: 1,
        };
        Ok(Some(Work::seal(&order, step)))
    }

    fn inventory() -> Inventory {
        Inventory {
            releases: vec!["r1".parse().unwrap(), "r2".parse().unwrap()],
            drafts: vec!["d1".parse().unwrap(), "d2".parse().unwrap()],
            staging: vec!["d1".parse().unwrap(), "d2".parse().unwrap()],
            uploads: vec!["u1".parse().unwrap(), "u2".parse().unwrap()],
            ..Inventory::default()
        }
    }

    fn known(d1: Result<Option<Work>, ()>) -> Known {
        Known {
            images: 1,
            releases: HashSet::from(["r1".parse().unwrap()]),
            drafts: HashMap::from([("d1".parse().unwrap(), d1)]),
        }
    }

    fn check(d1: Result<Option<Work>, ()>, expect: &[&str]) {
        let mut found: Vec<_> = orphans(&inventory(), &known(d1.clone()))
            .iter()
            .map(Orphan::path)
            .collect();
        found.sort();
        let expect: Vec<_> = expect.iter().map(|e| format!("/v1/{e}")).collect();
        assert_eq!(found, expect, "{d1:?}");
    }

    #[test]
    fn only_what_no_row_and_no_step_explains() {
        let idle = [
            "drafts/d2",
            "releases/r2",
            "staging/d1",
            "staging/d2",
            "uploads/u1",
            "uploads/u2",
        ];
        check(Ok(None), &idle);
        let import = Work::Import {
            job: "u1".parse().unwrap(),
            name: "x".into(),
            iso_disk_bytes: None,
        };
        check(
            Ok(Some(import)),
            &[
                "drafts/d2",
                "releases/r2",
                "staging/d1",
                "staging/d2",
                "uploads/u2",
            ],
        );
        let sealing = [
            "drafts/d2",
            "releases/r2",
            "staging/d2",
            "uploads/u1",
            "uploads/u2",
        ];
        check(seal(SealStep::Stage { tries: 1 }), &sealing);
        // A release that is being made has no name yet.
        let request = PublishRequest {
            sealed_at: 0,
            memory: None,
            cold_reason: None,
        };
        check(
            seal(SealStep::Publish {
                host: "h".parse().unwrap(),
                request,
            }),
            &["drafts/d2", "staging/d2", "uploads/u1", "uploads/u2"],
        );
        let close = SealStep::Close {
            host: "h".parse().unwrap(),
            release: "r2".parse().unwrap(),
            version: 1,
        };
        check(
            seal(close),
            &["drafts/d2", "staging/d2", "uploads/u1", "uploads/u2"],
        );
        check(Err(()), &["drafts/d2", "staging/d2"]);
    }

    #[test]
    fn an_empty_store_deletes_nothing() {
        assert!(orphans(&inventory(), &Known::default()).is_empty());
    }
}
