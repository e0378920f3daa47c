//! The class that a bench makes, and its removal.

use super::{Machine, say};
use crate::context::{Context, report};
use crate::exit::{self, Exit};
use crate::resolve;
use lyceum_api::courses::{Course, CourseCreate, Member, RosterChange, RosterCsv};
use lyceum_api::desktops::{Accepted, CourseOrder, Desktop};
use lyceum_api::hosts::{Health, Host};
use lyceum_api::operations::{Operation, OperationState};
use lyceum_model::{OperationId, Persistence, Phase, UserId};
use std::time::{Duration, Instant};

/// Sign-in names of a bench's students begin with this.
const LOGIN: &str = "bench-";

/// A course with students, made for one bench.
pub struct Class {
    /// The course.
    pub course: Course,
    /// Its students.
    pub students: Vec<UserId>,
    /// Where.
    pub machine: Machine,
}

/// How long each of an order's desktops took, seen from here, seconds; in the order they came.
pub struct Timed {
    /// One per desktop that was reached.
    pub seconds: Vec<f64>,
    /// How the operation ended.
    pub operation: Operation,
}

impl Class {
    /// Makes course and students.
    pub async fn make(ctx: &Context, image: &str, students: usize) -> anyhow::Result<Class> {
        let client = &ctx.client;
        let image = resolve::image(client, image).await?;
        let release = image.releases.first().cloned().ok_or_else(|| {
            Exit::coded(
                exit::REFUSED,
                format!(
                    "the image {} has no release yet; seal it first: lyceum image seal {:?}",
                    image.name, image.name
                ),
            )
        })?;
        if let Some(why) = &release.cold_reason {
            return Err(Exit::coded(
                exit::REFUSED,
                format!(
                    "release {} of {} can't be forked, so there is nothing to compare: {why}",
                    release.version, image.name
                ),
            ));
        }
        let health: Health = client.get("health").await?;
        let hosts: Vec<Host> = client.get("hosts").await?;
        let heard = hosts.iter().find(|h| h.online);
        let machine = Machine {
            at: jiff::Timestamp::now().as_millisecond(),
            version: health.version,
            cpus: heard.map_or(0, |h| h.cpus),
            hosts: hosts.iter().filter(|h| h.online).count(),
            accelerator: heard
                .and_then(|h| h.accelerator)
                .map_or_else(|| "?".into(), |a| crate::format::word(&a)),
            qemu: heard
                .and_then(|h| h.qemu_version.clone())
                .unwrap_or_else(|| "?".into()),
            image: format!("{}@{}", image.name, release.version),
        };
        let tag = format!("{:x}", jiff::Timestamp::now().as_second());
        say(&format!("making a course with {students} students"));
        let body = CourseCreate {
            name: format!("Bench {tag}"),
            image: image.id,
            release: Some(release.id.clone()),
            size: None,
            persistence: Persistence::Throwaway,
            outside: false,
            spice: false,
        };
        let course: Course = client.post("courses", &body).await?;
        let mut class = Class {
            course,
            students: Vec::new(),
            machine,
        };
        match class.enrol(ctx, &tag, students).await {
            Ok(()) => Ok(class),
            Err(error) => {
                class.remove(ctx).await;
                Err(error)
            }
        }
    }

    async fn enrol(&mut self, ctx: &Context, tag: &str, students: usize) -> anyhow::Result<()> {
        let mut csv = String::from("login,name\n");
        for n in 1..=students {
            csv.push_str(&format!("{LOGIN}{tag}-{n:03},Bench {n}\n"));
        }
        let body = RosterCsv {
            csv,
            remove_missing: false,
            create_accounts: true,
        };
        let change: RosterChange = ctx
            .client
            .put(&format!("courses/{}/roster", self.course.id), &body)
            .await?;
        if let Some(problem) = change.problems.first() {
            return Err(Exit::coded(
                exit::REFUSED,
                format!("the bench's students can't be made: {}", problem.message),
            ));
        }
        self.students = self
            .members(ctx)
            .await?
            .into_iter()
            .map(|m| m.user)
            .collect();
        if self.students.len() != students {
            return Err(Exit::coded(
                exit::FAILED,
                format!(
                    "{} of {students} students are on the roster",
                    self.students.len()
                ),
            ));
        }
        Ok(())
    }

    async fn members(&self, ctx: &Context) -> anyhow::Result<Vec<Member>> {
        let mut members: Vec<Member> = ctx
            .client
            .get(&format!("courses/{}/roster", self.course.id))
            .await?;
        members.retain(|m| m.login.starts_with(LOGIN));
        members.sort_by(|a, b| a.login.cmp(&b.login));
        Ok(members)
    }

    /// Orders something for the first `n` students and times each.
    pub async fn order(
        &self,
        ctx: &Context,
        what: &str,
        n: usize,
        cold: bool,
    ) -> anyhow::Result<Timed> {
        let users = self.students.iter().take(n).cloned().collect();
        let body = CourseOrder {
            users: Some(users),
            cold,
        };
        let began = Instant::now();
        let accepted: Accepted = ctx
            .client
            .post(&format!("courses/{}/{what}", self.course.id), &body)
            .await?;
        let timed = watch(ctx, &accepted.operation, began, Duration::from_millis(100)).await?;
        if timed.operation.state != OperationState::Done {
            return Err(Exit::coded(exit::FAILED, report(&timed.operation)));
        }
        Ok(timed)
    }

    /// Its desktops.
    pub async fn desktops(&self, ctx: &Context) -> anyhow::Result<Vec<Desktop>> {
        Ok(ctx
            .client
            .get(&format!("desktops?course={}", self.course.id))
            .await?)
    }

    /// Running desktops after memory was sampled once they all had settled: two samples of the
    /// hosts later than now.
    pub async fn settled(&self, ctx: &Context, settle: Duration) -> anyhow::Result<Vec<Desktop>> {
        tokio::time::sleep(settle).await;
        let mut desktops = self.desktops(ctx).await?;
        desktops.retain(|d| d.phase == Phase::Running);
        Ok(desktops)
    }

    /// Removes everything the bench made. Trouble is told: what is left can be seen and deleted
    /// by hand.
    pub async fn remove(self, ctx: &Context) {
        say("removing the course and its students");
        if let Err(error) = self.try_remove(ctx).await {
            say(&format!(
                "not everything could be removed: {error}; the course is {:?}, the students' sign-in names begin with {LOGIN}",
                self.course.name
            ));
        }
    }

    async fn try_remove(&self, ctx: &Context) -> anyhow::Result<()> {
        let members = self.members(ctx).await?;
        let answer: serde_json::Value = ctx
            .client
            .delete(&format!("courses/{}", self.course.id))
            .await?;
        crate::commands::course::follow_if_any(ctx, answer).await?;
        for member in members {
            let _: serde_json::Value = ctx.client.delete(&format!("users/{}", member.user)).await?;
        }
        Ok(())
    }
}

/// Watches an operation closely and notes when its count grows.
pub async fn watch(
    ctx: &Context,
    id: &OperationId,
    began: Instant,
    every: Duration,
) -> anyhow::Result<Timed> {
    let path = format!("operations/{id}");
    let mut seconds = Vec::new();
    let bar = crate::context::progress_bar(ctx.json);
    loop {
        let operation: Operation = ctx.client.get(&path).await?;
        // When the answer is there: never earlier than it was so.
        let now = began.elapsed().as_secs_f64();
        seconds.resize((operation.done as usize).max(seconds.len()), now);
        bar.set_length(u64::from(operation.total.max(1)));
        bar.set_position(u64::from(operation.done));
        bar.set_message(crate::table::plain(&operation.step));
        if operation.state != OperationState::Running {
            bar.finish_and_clear();
            return Ok(Timed { seconds, operation });
        }
        tokio::time::sleep(every).await;
    }
}

/// Does the work and removes the class afterwards, also after an error or Ctrl-C.
pub async fn with_class<T>(
    ctx: &Context,
    class: Class,
    work: impl AsyncFnOnce(&Class) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let result = tokio::select! {
        result = work(&class) => result,
        _ = tokio::signal::ctrl_c() => Err(Exit::coded(exit::INTERRUPTED, "interrupted")),
    };
    class.remove(ctx).await;
    result
}
