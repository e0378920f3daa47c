//! What the timetable wants of the hosts: the mode in force, and seats until when.

use super::{School, course_of};
use crate::app::App;
use crate::error::ApiFailure;
use lyceum_model::{CourseId, Desired, UnixMillis, UserId};
use lyceum_placement::Mode;
use lyceum_placement::decide::SOON_MINUTES;
use lyceum_store::courses::MemberRole;
use lyceum_store::desktops::Owner;
use lyceum_timetable::{Hours, MINUTE, Occurrence};
use std::collections::{HashMap, HashSet};

/// Hosts that are on stay on for lessons that begin within this time.
const SOON: i64 = SOON_MINUTES as i64 * MINUTE;

/// What the timetable wants now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Which hours it is.
    pub hours: Hours,
    /// Until when; `None`: for more than a week.
    pub until: Option<UnixMillis>,
    /// The mode in force; `None`: the timetable does not choose.
    pub mode: Option<Mode>,
    /// Why, for people.
    pub reason: String,
    /// Free seats that hosts have to be woken for: desktops of lessons that are on, or near enough, which do
    /// not have a seat yet.
    pub seats: u32,
    /// The end of the last of these lessons.
    pub seats_until: Option<UnixMillis>,
    /// Free seats that hosts which are on are kept on for: these, and those of lessons in the next 75 minutes.
    pub keep_seats: u32,
}

/// What the timetable wants now.
pub async fn demand(app: &App) -> Result<Demand, ApiFailure> {
    let school = School::load(&app.store).await?;
    of(app, &school, app.now()).await
}

/// The same of a timetable that was read.
pub async fn of(app: &App, school: &School, now: UnixMillis) -> Result<Demand, ApiFailure> {
    let (hours, until) = school.table.hours(school.hours_rule(), now);
    let chosen = match hours {
        Hours::Class => &school.rules.class_mode,
        Hours::Other => &school.rules.other_mode,
    };
    let mode = (school.rules.acts && !school.rows.is_empty())
        .then(|| super::rules::mode(chosen))
        .flatten();
    let mut reason = match hours {
        Hours::Class => "class hours".to_owned(),
        Hours::Other => "other hours".to_owned(),
    };
    if let Some(until) = until {
        let at = school.table.zone.civil(until);
        reason.push_str(&format!(" until {}", at.strftime("%Y-%m-%d %H:%M")));
    }
    let mut demand = Demand {
        hours,
        until,
        mode,
        reason,
        seats: 0,
        seats_until: None,
        keep_seats: 0,
    };
    if !school.rules.acts {
        return Ok(demand);
    }
    let wake = i64::from(school.rules.hosts_before_minutes) * MINUTE;
    let near = now + school.longest_lead() + wake;
    let coming = school
        .table
        .between(now, (now + SOON).max(near).saturating_add(1));
    let leads = school.leads(&app.store, &coming).await?;
    let (mut waiting, mut soon) = (HashSet::new(), HashSet::new());
    let seatless = Seatless::read(app).await?;
    for o in &coming {
        let Some(course) = course_of(o).filter(|c| school.course(c).starts) else {
            continue;
        };
        let lead = leads.get(&o.course).copied().unwrap_or(0);
        let open = !seatless.is_over(app, o, now).await?;
        let people = if open {
            seatless.of(&course)
        } else {
            Vec::new()
        };
        if o.begin - lead - wake <= now {
            demand.seats_until = demand.seats_until.max(Some(o.end));
            waiting.extend(people.iter().map(|user| (course.clone(), user.clone())));
        }
        soon.extend(people.into_iter().map(|user| (course.clone(), user)));
    }
    demand.seats = waiting.len() as u32;
    demand.keep_seats = soon.len() as u32;
    Ok(demand)
}

/// Students whose desktops have no seat.
struct Seatless {
    students: HashMap<CourseId, Vec<UserId>>,
    seated: HashSet<(CourseId, UserId)>,
}

impl Seatless {
    async fn read(app: &App) -> Result<Seatless, ApiFailure> {
        let mut students: HashMap<CourseId, Vec<UserId>> = HashMap::new();
        for (course, roster) in app.reads.rosters().await?.iter() {
            let of_course = roster
                .iter()
                .filter(|(_, role)| **role == MemberRole::Student)
                .map(|(user, _)| user.clone());
            students
                .entry(course.clone())
                .or_default()
                .extend(of_course);
        }
        let desktops = app.reads.desktops().await?;
        let seated = desktops
            .rows
            .iter()
            .filter(|d| d.host.is_some() && d.desired == Desired::Running)
            .filter_map(|d| match &d.owner {
                Owner::Course { course, user } => Some((course.clone(), user.clone())),
                Owner::Draft { .. } => None,
            })
            .collect();
        Ok(Seatless { students, seated })
    }

    fn of(&self, course: &CourseId) -> Vec<UserId> {
        self.students
            .get(course)
            .into_iter()
            .flatten()
            .filter(|user| !self.seated.contains(&(course.clone(), (*user).clone())))
            .cloned()
            .collect()
    }

    /// Whether everybody's desktop was started for it: who has none now has ended it.
    async fn is_over(
        &self,
        app: &App,
        o: &Occurrence,
        now: UnixMillis,
    ) -> Result<bool, ApiFailure> {
        if o.begin - now > SOON {
            return Ok(false);
        }
        let Some(course) = course_of(o) else {
            return Ok(true);
        };
        let started: HashSet<UserId> =
            lyceum_store::timetable::occurrence_people(&app.store, &super::key(o))
                .await?
                .into_iter()
                .collect();
        Ok(self
            .students
            .get(&course)
            .is_none_or(|all| all.iter().all(|user| started.contains(user))))
    }
}
