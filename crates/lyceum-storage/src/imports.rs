//! Imports: jobs that make a draft's disk of an upload, one after another.
//!
//! A job is written down before it is accepted and again when it is over, so that a
//! restart takes up what was not finished.

use crate::agent::{Agent, gone, ids, json};
use crate::drafts::draft_key;
use crate::error::{Result, StorageError};
use crate::uploads::{find, upload_key};
use lyceum_disk::import::{Import, Step, keep_iso};
use lyceum_disk::inspect::{ImageFormat, Inspected, Limits};
use lyceum_disk::{Cancel, DiskError, files};
use lyceum_model::JobId;
use lyceum_proto::storage::{ImportOutcome, ImportRequest, ImportStatus};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A job as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    request: ImportRequest,
    outcome: Option<ImportOutcome>,
}

struct Job {
    request: ImportRequest,
    status: Mutex<ImportStatus>,
    cancel: Cancel,
    /// Wakes it while it waits for its turn.
    wake: CancellationToken,
    /// Is cancelled when the task has ended.
    over: CancellationToken,
}

impl Job {
    fn status(&self) -> MutexGuard<'_, ImportStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, step: &str, percent: f64) {
        let mut status = self.status();
        status.step = step.to_owned();
        // A job never seems to go back.
        status.percent = percent.max(status.percent);
    }

    fn stop(&self) {
        self.cancel.cancel();
        self.wake.cancel();
    }
}

/// All jobs that are known.
pub(crate) struct Imports {
    jobs: Mutex<HashMap<JobId, Arc<Job>>>,
    /// One at a time: conversions are bound by the disks.
    turn: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Default for Imports {
    fn default() -> Self {
        Imports {
            jobs: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }
}

impl Imports {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, job: &JobId) -> Option<Arc<Job>> {
        self.jobs().get(job).cloned()
    }

    /// Whether an unfinished import needs this upload.
    pub fn reads(&self, upload: &JobId) -> bool {
        self.jobs()
            .values()
            .any(|job| job.request.upload == *upload && job.status().outcome.is_none())
    }

    /// Stops all jobs without giving them an outcome, and waits for them.
    pub async fn stop(&self) {
        self.stopping.cancel();
        for job in self.jobs().values() {
            job.stop();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn status(job: &JobId, step: &str, outcome: Option<ImportOutcome>) -> ImportStatus {
    ImportStatus {
        job: job.clone(),
        step: step.to_owned(),
        percent: if outcome.is_some() { 100.0 } else { 0.0 },
        outcome,
    }
}

const WAITING: &str = "waiting for other imports";
const DONE: &str = "done";

impl Agent {
    fn record_path(&self, job: &JobId) -> PathBuf {
        self.inner
            .dirs
            .fast
            .join("imports")
            .join(format!("{job}.json"))
    }

    /// Accepts a job, or answers how the same job is doing.
    pub(crate) async fn import(&self, id: JobId, request: ImportRequest) -> Result<ImportStatus> {
        // Two requests for the same job at once would start it twice.
        let hold = self
            .inner
            .objects
            .hold(format!("import/{id}"), "is being accepted")
            .await;
        if let Some(job) = self.inner.imports.get(&id) {
            if job.request != request {
                return Err(StorageError::state(format!(
                    "import {id} exists and imports something else: use a new id"
                )));
            }
            return Ok(job.status().clone());
        }
        let path = self.record_path(&id);
        self.work(hold, {
            let request = request.clone();
            move |inner, _| {
                find(&inner.dirs.slow, &request.upload)?;
                if inner.dirs.draft(&request.draft).exists() {
                    return Err(StorageError::state(format!(
                        "draft {} has a disk already: import into a new draft",
                        request.draft
                    )));
                }
                let record = Record {
                    request,
                    outcome: None,
                };
                files::write_atomic(&path, &json(&record)?, 0o600)?;
                Ok(())
            }
        })
        .await?;
        Ok(self.start(id, request))
    }

    pub(crate) fn import_status(&self, job: &JobId) -> Result<ImportStatus> {
        match self.inner.imports.get(job) {
            Some(job) => Ok(job.status().clone()),
            None => Err(StorageError::not_found(format!(
                "there is no import {job}: it was cancelled, or never asked for"
            ))),
        }
    }

    /// Cancels a job and clears up, or forgets one that is over.
    pub(crate) async fn delete_import(&self, id: JobId) -> Result<()> {
        let Some(job) = self.inner.imports.get(&id) else {
            return Ok(());
        };
        let was_over = job.status().outcome.is_some();
        job.stop();
        job.over.cancelled().await;
        let request = job.request.clone();
        let came_through =
            !was_over && matches!(job.status().outcome, Some(ImportOutcome::Imported { .. }));
        if came_through {
            // It finished between the two looks; who cancels does not want it.
            self.delete_draft(request.draft).await?;
        }
        let hold = self
            .inner
            .objects
            .hold(upload_key(&request.upload), "is being removed")
            .await;
        let path = self.record_path(&id);
        self.work(hold, move |inner, _| {
            if !was_over {
                let upload = inner
                    .dirs
                    .slow
                    .join("uploads")
                    .join(request.upload.as_str());
                files::remove_atomic(&upload)?;
            }
            // Last: until it is gone, a restart would take the job up again.
            if files::remove(&path)? {
                files::sync_parent(&path)?;
            }
            Ok(())
        })
        .await?;
        self.inner.imports.jobs().remove(&id);
        Ok(())
    }

    /// At the start of the agent: what is over is remembered, what is not is taken up.
    pub(crate) async fn resume_imports(&self) -> Result<()> {
        let records = self
            .look(|inner| {
                let folder = inner.dirs.fast.join("imports");
                let mut records = Vec::new();
                for id in ids::<JobId>(&folder, ".json")? {
                    let bytes = std::fs::read(folder.join(format!("{id}.json")));
                    match bytes.map(|b| serde_json::from_slice::<Record>(&b)) {
                        Ok(Ok(record)) => records.push((id, record)),
                        _ => tracing::warn!(job = %id, "the record of an import can't be read; it is left alone"),
                    }
                }
                Ok(records)
            })
            .await?;
        for (id, record) in records {
            match record.outcome {
                Some(outcome) => {
                    let over = CancellationToken::new();
                    over.cancel();
                    let job = Job {
                        status: Mutex::new(status(&id, DONE, Some(outcome))),
                        request: record.request.clone(),
                        cancel: Cancel::new(),
                        wake: CancellationToken::new(),
                        over,
                    };
                    self.inner.imports.jobs().insert(id, Arc::new(job));
                    // The kill may have come between the outcome and this.
                    self.drop_upload(&record.request.upload).await?;
                }
                None => {
                    tracing::info!(job = %id, "taking up an import");
                    // Whatever stands there was made by this job: nobody else was let near it.
                    self.delete_draft(record.request.draft.clone()).await?;
                    self.start(id, record.request);
                }
            }
        }
        Ok(())
    }

    async fn drop_upload(&self, upload: &JobId) -> Result<()> {
        let folder = self.inner.dirs.slow.join("uploads").join(upload.as_str());
        self.look(move |_| Ok(files::remove_atomic(&folder).map(drop)?))
            .await
    }

    fn start(&self, id: JobId, request: ImportRequest) -> ImportStatus {
        let first = status(&id, WAITING, None);
        let job = Arc::new(Job {
            request,
            status: Mutex::new(first.clone()),
            cancel: Cancel::new(),
            wake: CancellationToken::new(),
            over: CancellationToken::new(),
        });
        let imports = &self.inner.imports;
        imports.jobs().insert(id.clone(), job.clone());
        let agent = self.clone();
        imports.tasks.spawn(async move {
            let outcome = agent.run_import(&job).await;
            agent.finish_import(&id, &job, outcome).await;
            job.over.cancel();
        });
        first
    }

    async fn run_import(&self, job: &Arc<Job>) -> Result<ImportOutcome> {
        let _turn = tokio::select! {
            biased;
            () = job.wake.cancelled() => return Err(DiskError::Cancelled.into()),
            turn = self.inner.imports.turn.clone().acquire_owned() => turn,
        };
        let objects = &self.inner.objects;
        let upload = objects
            .hold(upload_key(&job.request.upload), "is being imported")
            .await;
        let draft = objects
            .hold(draft_key(&job.request.draft), "is being imported")
            .await;
        job.cancel.check()?;
        let (agent, job) = (self.clone(), job.clone());
        tokio::task::spawn_blocking(move || {
            let done = agent.convert(&job, &draft.cancel);
            drop((upload, draft));
            done
        })
        .await
        .map_err(gone)?
    }

    /// Blocking. `gone`: somebody deletes the draft meanwhile.
    fn convert(&self, job: &Job, gone: &Cancel) -> Result<ImportOutcome> {
        let inner = &*self.inner;
        let (image, meta) = find(&inner.dirs.slow, &job.request.upload)?;
        let work = inner.dirs.fast.join("work");
        let import = Import {
            image: &image,
            name: &meta.name,
            limits: Limits {
                max_virtual_bytes: inner.fast.largest()?,
            },
            work: &work,
            owner: inner.owner,
        };
        job.step("checking what the image is", 1.0);
        let inspected = import.inspect(&job.cancel)?;
        let what = format!("can't import {:?}", meta.name);
        inner.fast.need(files::bytes_on_disk(&image), &what)?;
        if inspected.format == ImageFormat::Iso {
            return self.import_iso(job, &image, inspected);
        }
        if job.request.iso_disk_bytes.is_some() {
            return Err(StorageError::invalid(format!(
                "{:?} is a disk and no ISO: import it without a size for an empty disk",
                meta.name
            )));
        }
        let mut progress = |step| match step {
            Step::Inspecting => job.step("checking what the image is", 1.0),
            Step::Checking => job.step("checking the image for damage", 3.0),
            Step::Converting(percent) => job.step("converting", 5.0 + percent * 0.9),
            Step::Finishing => job.step("checking the result", 96.0),
        };
        let mut space = || {
            if gone.is_cancelled() {
                return Err(DiskError::Cancelled);
            }
            inner.fast.need(1, &what)
        };
        let imported = import.convert(
            &inner.qemu_img,
            inspected,
            &job.cancel,
            &mut progress,
            &mut space,
        )?;
        job.cancel.check()?;
        gone.check()?;
        let to = inner.dirs.draft(&job.request.draft);
        if to.exists() {
            return Err(StorageError::state(format!(
                "draft {} got a disk while the image was imported: import into a new draft",
                job.request.draft
            )));
        }
        std::fs::rename(imported.disk(), &to).map_err(|source| DiskError::Io {
            what: "can't rename to",
            path: to.clone(),
            source,
        })?;
        files::sync_parent(&to)?;
        for note in &imported.inspected.notes {
            tracing::info!(name = ?meta.name, %note, "imported");
        }
        Ok(imported_outcome(&imported.inspected, false))
    }

    fn import_iso(&self, job: &Job, image: &Path, inspected: Inspected) -> Result<ImportOutcome> {
        let inner = &*self.inner;
        let draft = &job.request.draft;
        let Some(bytes) = job.request.iso_disk_bytes else {
            return Err(StorageError::invalid(
                "an ISO is installed to an empty disk: say how large that disk shall be",
            ));
        };
        let largest = inner.fast.largest()?;
        if bytes > largest {
            return Err(StorageError::invalid(format!(
                "an empty disk of {} is more than the fast tier could ever hold ({}): choose a smaller one",
                lyceum_disk::inspect::size(bytes),
                lyceum_disk::inspect::size(largest)
            )));
        }
        job.step("keeping the ISO", 10.0);
        let iso = inner.dirs.draft_iso(draft);
        let made = keep_iso(image, &iso, &job.cancel)
            .and_then(|()| inner.driver.create(draft, bytes).map(drop))
            .and_then(|()| job.cancel.check());
        if let Err(error) = made {
            for path in [inner.dirs.draft(draft), iso] {
                files::remove(&path)?;
            }
            return Err(error.into());
        }
        Ok(ImportOutcome::Imported {
            format: inspected.format.to_string(),
            virtual_bytes: bytes,
            iso: true,
        })
    }

    /// Writes the outcome down, shows it, and removes the upload, which has done its service.
    async fn finish_import(&self, id: &JobId, job: &Job, outcome: Result<ImportOutcome>) {
        let cancelled = matches!(outcome, Err(StorageError::Disk(DiskError::Cancelled)));
        if cancelled && self.inner.imports.stopping.is_cancelled() {
            // Not an outcome: the next start takes it up.
            return;
        }
        let outcome = outcome.unwrap_or_else(|error| ImportOutcome::Refused {
            message: error.to_string(),
        });
        let record = Record {
            request: job.request.clone(),
            outcome: Some(outcome.clone()),
        };
        let path = self.record_path(id);
        let written = self
            .look(move |_| Ok(files::write_atomic(&path, &json(&record)?, 0o600)?))
            .await;
        if let Err(error) = written {
            // It stays true; only a restart would do the work again.
            tracing::warn!(job = %id, %error, "can't write down how an import ended");
        } else if let Err(error) = self.drop_upload(&job.request.upload).await {
            tracing::warn!(job = %id, %error, "can't remove an upload that is imported");
        }
        let mut status = job.status();
        status.step = DONE.into();
        status.percent = 100.0;
        status.outcome = Some(outcome);
    }
}

fn imported_outcome(inspected: &Inspected, iso: bool) -> ImportOutcome {
    ImportOutcome::Imported {
        format: inspected.format.to_string(),
        virtual_bytes: inspected.virtual_bytes,
        iso,
    }
}
