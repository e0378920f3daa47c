//! What is to be done about a draft next, as kept in its row. Every value is a step
//! that can be carried out again from its beginning, whatever became of the last try.
//!
//! ```text
//!  Make ──────────────────────────┐
//!  Upload ──► Import ──► Finish ──┴──► (none): ready, or empty with the reason
//!     └─────────────────────▲
//!
//!  Seal: StopMachine ──► Clear ──► Stage ──► Choose ──► Watch ──► Publish ──► Record ──► Close ──► (row gone)
//!             │            ▲                              │
//!             │            └───── the job was lost ───────┤
//!             └────────── failed or called off ───────────┴──► Cleanup ──► (none): ready, with the reason
//!
//!  Discard ──► (row gone)
//! ```

use lyceum_model::{HostId, JobId, MachineSize, ReleaseId, UnixMillis};
use lyceum_proto::storage::{DraftRequest, PublishRequest, Published};
use serde::{Deserialize, Serialize};

/// The work on one draft.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Make its disk, from a release or empty.
    Make {
        /// What storage is asked for.
        request: DraftRequest,
    },
    /// Its file is coming in. Whoever streams it says so again and again.
    Upload(Upload),
    /// The file is there: storage makes a disk of it.
    Import {
        /// Name of the upload and of the import.
        job: JobId,
        /// Name of the file, for people.
        name: String,
        /// Size of the disk to install to when it is an ISO.
        iso_disk_bytes: Option<u64>,
    },
    /// Forget upload and import, and say how it ended.
    Finish {
        /// Upload and import, when there was one.
        job: Option<JobId>,
        /// How.
        end: ImportEnd,
    },
    /// Make a release of it.
    Seal {
        /// What was ordered.
        order: SealTerms,
        /// Where it is.
        step: SealStep,
    },
    /// Remove it with all it has.
    Discard {
        /// Upload and import, when there was one.
        job: Option<JobId>,
        /// Where it was being sealed.
        host: Option<HostId>,
        /// What was published and not offered, or may have been.
        published: Option<Leftover>,
    },
}

/// A file that is coming in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// Name of the upload, and of the import that follows.
    pub job: JobId,
    /// Name of the file, for people.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// Size of the disk to install to when it is an ISO.
    pub iso_disk_bytes: Option<u64>,
    /// When whoever streams it said last that it goes on.
    pub alive: UnixMillis,
}

/// How the making of a draft's disk ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ImportEnd {
    /// The disk is there.
    Ready {
        /// With an ISO in its drive.
        iso: bool,
        /// What was imported, for people.
        detail: String,
    },
    /// There is no disk.
    Failed {
        /// What failed, why, what to do.
        message: String,
    },
    /// A person called it off.
    Cancelled,
}

/// What was ordered when a seal was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealTerms {
    /// Size to seal with.
    pub size: MachineSize,
    /// What changed, for people.
    pub note: String,
    /// Sign-in name of who asked.
    pub by: String,
    /// How long the guest may take until it is ready, milliseconds.
    pub ready_timeout_ms: u64,
}

/// A release that is not to be offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum Leftover {
    /// Storage answered with its name.
    Release {
        /// It.
        release: ReleaseId,
    },
    /// Storage was asked to make it and may have; asking again tells its name.
    Asked {
        /// What it was asked.
        request: PublishRequest,
    },
}

/// Where a seal is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum SealStep {
    /// Shut down the machine that the draft is open in.
    StopMachine,
    /// Make sure that nothing is left of an earlier try.
    Clear {
        /// Where that was.
        host: Option<HostId>,
        /// How many tries were begun.
        tries: u32,
    },
    /// Copy the draft's disk to where it is sealed.
    Stage {
        /// As in `Clear`.
        tries: u32,
    },
    /// Find a host.
    Choose {
        /// As in `Clear`.
        tries: u32,
    },
    /// The host was told, or was about to be.
    Watch {
        /// Which.
        host: HostId,
        /// As in `Clear`.
        tries: u32,
    },
    /// Make a release of what the host wrote.
    Publish {
        /// Where it was sealed.
        host: HostId,
        /// The same at every try, so that the release's id is too.
        request: PublishRequest,
    },
    /// Offer it.
    Record {
        /// Where it was sealed.
        host: HostId,
        /// The release.
        published: Box<Published>,
    },
    /// The release is offered: close the draft.
    Close {
        /// Where it was sealed.
        host: HostId,
        /// The release.
        release: ReleaseId,
        /// Its version.
        version: u32,
    },
    /// Nothing came of it: remove all but the draft as it was.
    Cleanup {
        /// Where it was being sealed.
        host: Option<HostId>,
        /// What was published, or may have been.
        published: Option<Leftover>,
        /// Why; `None`: a person called it off.
        failure: Option<String>,
    },
}

impl Work {
    /// As it is kept.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Out of the store.
    pub fn parse(text: &str) -> Result<Work, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// A seal at this step.
    pub fn seal(order: &SealTerms, step: SealStep) -> Work {
        Work::Seal {
            order: order.clone(),
            step,
        }
    }

    /// The upload or import that is under way.
    pub fn job(&self) -> Option<&JobId> {
        match self {
            Work::Upload(u) => Some(&u.job),
            Work::Import { job, .. } => Some(job),
            Work::Finish { job, .. } | Work::Discard { job, .. } => job.as_ref(),
            Work::Make { .. } | Work::Seal { .. } => None,
        }
    }

    /// What to do instead when a person called the work off; `None` when it is being undone
    /// already or is past the point where it can be.
    pub fn called_off(&self) -> Option<Work> {
        match self {
            Work::Make { .. } => Some(Work::Finish {
                job: None,
                end: ImportEnd::Cancelled,
            }),
            Work::Upload(Upload { job, .. }) | Work::Import { job, .. } => Some(Work::Finish {
                job: Some(job.clone()),
                end: ImportEnd::Cancelled,
            }),
            Work::Seal { order, step } => Some(Work::seal(order, step.cleanup(None)?)),
            Work::Finish { .. } | Work::Discard { .. } => None,
        }
    }
}

/// What removes a draft, whatever it is doing. `None`: it is being removed already, or closes
/// by itself since its release is offered.
pub fn discard(work: Option<&Work>) -> Option<Work> {
    let (host, published) = match work {
        Some(
            Work::Discard { .. }
            | Work::Seal {
                step: SealStep::Close { .. },
                ..
            },
        ) => return None,
        Some(Work::Seal {
            step: SealStep::Cleanup {
                host, published, ..
            },
            ..
        }) => (host.clone(), published.clone()),
        Some(Work::Seal { step, .. }) => match step.cleanup(None) {
            Some(SealStep::Cleanup {
                host, published, ..
            }) => (host, published),
            _ => (None, None),
        },
        _ => (None, None),
    };
    Some(Work::Discard {
        job: work.and_then(Work::job).cloned(),
        host,
        published,
    })
}

impl SealStep {
    /// The step that undoes this one; `None` when it is being undone already or can't be.
    /// `failure`: why; `None`: a person called it off.
    pub fn cleanup(&self, failure: Option<String>) -> Option<SealStep> {
        let (host, published) = match self {
            SealStep::StopMachine | SealStep::Stage { .. } | SealStep::Choose { .. } => {
                (None, None)
            }
            SealStep::Clear { host, .. } => (host.clone(), None),
            SealStep::Watch { host, .. } => (Some(host.clone()), None),
            SealStep::Publish { host, request } => (
                Some(host.clone()),
                Some(Leftover::Asked {
                    request: request.clone(),
                }),
            ),
            SealStep::Record { host, published } => (
                Some(host.clone()),
                Some(Leftover::Release {
                    release: published.release.clone(),
                }),
            ),
            SealStep::Close { .. } | SealStep::Cleanup { .. } => return None,
        };
        Some(SealStep::Cleanup {
            host,
            published,
            failure,
        })
    }
}
