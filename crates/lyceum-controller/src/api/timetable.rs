//! The timetable: lessons and their exceptions, terms and holidays, what it does, what takes place.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json, Path, Query};
use crate::timetable::{School, demand, key, rules};
use axum::extract::State;
use axum::http::StatusCode;
use lyceum_api::timetable::{
    self as api, CourseTimetable, HoursKind, LessonEnd, LessonExceptionPut, LessonPut,
    OccurrenceState, SchoolDaysKind, SchoolDaysPut, TimetableCourse, TimetableNow, TimetableRules,
    TimetableRulesPatch, Week, WeekDay, WeekQuery,
};
use lyceum_api::wording::wordings;
use lyceum_model::{CourseId, LessonId, SchoolDaysId, UnixMillis, name};
use lyceum_store::Tx;
use lyceum_store::timetable::{
    self as rows, AtEnd, CourseRules, DaysKind, LessonRow, OccurrenceRow, SchoolDays,
};
use lyceum_timetable::{
    Clock, Exception, Hours, Lesson, Occurrence, Span, Timetable, Weekday, When, clashes,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest room and name of days, characters.
const ROOM: usize = 80;
/// Most exceptions of a lesson.
const EXCEPTIONS: usize = 2000;
/// Most lessons in all.
pub(super) const LESSONS: usize = 20_000;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get))
        .routes(routes!(week))
        .routes(routes!(now))
        .routes(routes!(patch_rules))
        .routes(routes!(create))
        .routes(routes!(put, delete))
        .routes(routes!(put_exception, delete_exception))
        .routes(routes!(create_days))
        .routes(routes!(put_days, delete_days))
        .routes(routes!(get_course, put_course))
        .merge(super::timetable_file::routes())
}

/// The courses that somebody sees, with their titles and whether they may be changed.
pub(super) struct Seen(HashMap<CourseId, (String, bool)>);

impl Seen {
    pub(super) async fn by(app: &App, actor: &Actor) -> Result<Seen, ApiFailure> {
        let (lines, rosters) = (app.reads.courses().await?, app.reads.rosters().await?);
        Ok(Seen(
            lines
                .iter()
                .filter_map(|line| {
                    let id = &line.course.id;
                    let role = actor
                        .user_id()
                        .and_then(|user| rosters.get(id)?.get(user))
                        .copied();
                    let teaches = role == Some(lyceum_store::courses::MemberRole::Teacher);
                    (role.is_some() || actor.is_admin()).then(|| {
                        let may = teaches || actor.is_admin();
                        (id.clone(), (line.course.name.clone(), may))
                    })
                })
                .collect(),
        ))
    }

    pub(super) fn editable(&self) -> impl Iterator<Item = (&CourseId, &str)> {
        self.0
            .iter()
            .filter(|(_, (_, may))| *may)
            .map(|(id, (name, _))| (id, name.as_str()))
    }

    fn name(&self, id: &str) -> Option<&(String, bool)> {
        self.0.get(&id.parse().ok()?)
    }
}

fn shown_rules(r: CourseRules) -> CourseTimetable {
    CourseTimetable {
        starts: r.starts,
        at_end: match r.at_end {
            AtEnd::Suspend => LessonEnd::Suspend,
            AtEnd::Reset => LessonEnd::Reset,
            AtEnd::Stop => LessonEnd::Stop,
            AtEnd::Keep => LessonEnd::Keep,
        },
        grace_minutes: r.grace_minutes,
    }
}

fn shown_days(d: &SchoolDays) -> api::SchoolDays {
    api::SchoolDays {
        id: d.id.clone(),
        kind: match d.kind {
            DaysKind::Term => SchoolDaysKind::Term,
            DaysKind::Holiday => SchoolDaysKind::Holiday,
        },
        name: d.span.name.clone(),
        first: d.span.first.to_string(),
        last: d.span.last.to_string(),
    }
}

fn shown_lesson(row: &LessonRow, (course_name, may_edit): &(String, bool)) -> api::Lesson {
    let l = &row.lesson;
    let (weekday, date, every_weeks, from, until) = match l.when {
        When::Weekly {
            weekday,
            every_weeks,
            from,
            until,
        } => (Some(weekday), None, every_weeks, from, until),
        When::Once { date } => (None, Some(date), 1, None, None),
    };
    api::Lesson {
        id: row.id.clone(),
        course: row.course.clone(),
        course_name: course_name.clone(),
        title: l.title.clone(),
        room: l.room.clone(),
        weekday: weekday.map(|d| d.to_string()),
        date: date.map(|d| d.to_string()),
        begin: l.begin.to_string(),
        end: l.end().to_string(),
        every_weeks,
        from: from.map(|d| d.to_string()),
        until: until.map(|d| d.to_string()),
        zone: l.zone.as_ref().map(|z| z.name().to_owned()),
        imported: row.uid.is_some(),
        may_edit: *may_edit,
        exceptions: l
            .exceptions
            .iter()
            .map(|(date, exception)| shown_exception(date.to_string(), exception))
            .collect(),
    }
}

fn shown_exception(date: String, exception: &Exception) -> api::LessonException {
    match exception {
        Exception::Cancelled => api::LessonException {
            date,
            cancelled: true,
            to_date: None,
            begin: None,
            end: None,
            room: None,
        },
        Exception::Moved {
            date: to,
            begin,
            minutes,
            room,
        } => api::LessonException {
            date,
            cancelled: false,
            to_date: Some(to.to_string()),
            begin: Some(begin.to_string()),
            end: Some(begin.plus(*minutes).to_string()),
            room: room.clone(),
        },
    }
}

/// A value of a request, or which one is wrong and how.
fn value<T: FromStr>(what: &str, text: &str, like: &str) -> Result<T, ApiFailure> {
    text.parse().map_err(|_| {
        ApiFailure::invalid(format!(
            "{what} is {:?}, which is none: write for example {like}",
            text.chars().take(40).collect::<String>()
        ))
    })
}

fn day(what: &str, text: &str) -> Result<jiff::civil::Date, ApiFailure> {
    // The library would also take a time behind the day.
    if text.len() > 10 {
        return value(what, "", "2026-11-23");
    }
    value(what, text, "2026-11-23")
}

fn room(text: Option<&str>) -> Result<Option<String>, ApiFailure> {
    match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => Ok(Some(name::title("the room's name", text, ROOM)?)),
    }
}

/// A lesson as a request describes it.
fn lesson(id: &LessonId, body: &LessonPut) -> Result<Lesson, ApiFailure> {
    let opt = |what, text: &Option<String>| text.as_deref().map(|t| day(what, t)).transpose();
    let when = match (&body.weekday, &body.date) {
        (Some(weekday), None) => When::Weekly {
            weekday: value::<Weekday>("weekday", weekday, "mon")?,
            every_weeks: body.every_weeks.unwrap_or(1),
            from: opt("from", &body.from)?,
            until: opt("until", &body.until)?,
        },
        (None, Some(date)) => When::Once {
            date: day("date", date)?,
        },
        _ => {
            return Err(ApiFailure::invalid(
                "a lesson has either a weekday or a date: give exactly one of the two",
            ));
        }
    };
    let begin: Clock = value("begin", &body.begin, "08:10")?;
    let end: Clock = value("end", &body.end, "10:00")?;
    let lesson = Lesson {
        id: id.to_string(),
        course: body.course.to_string(),
        room: room(body.room.as_deref())?,
        title: match body.title.trim() {
            "" => String::new(),
            title => name::title("the lesson's title", title, 120)?,
        },
        when,
        begin,
        minutes: begin.until(end),
        zone: body.zone.as_deref().map(rules::zone).transpose()?,
        exceptions: BTreeMap::new(),
    };
    lesson
        .check()
        .map_err(|e| ApiFailure::invalid(e.to_string()))?;
    Ok(lesson)
}

/// What of the timetable concerns whoever asks: admins all, others their courses.
#[utoipa::path(get, path = "/timetable", responses((status = 200, body = api::Timetable)))]
async fn get(State(app): State<App>, actor: Actor) -> Result<Json<api::Timetable>, ApiFailure> {
    let school = School::load(&app.store).await?;
    let seen = Seen::by(&app, &actor).await?;
    let mut courses: Vec<TimetableCourse> = seen
        .0
        .iter()
        .map(|(course, (name, may_edit))| TimetableCourse {
            course: course.clone(),
            name: name.clone(),
            may_edit: *may_edit,
            rules: shown_rules(school.course(course)),
        })
        .collect();
    courses.sort_by(|a, b| (&a.name, &a.course).cmp(&(&b.name, &b.course)));
    Ok(Json(api::Timetable {
        days: school.days.iter().map(shown_days).collect(),
        lessons: school
            .rows
            .iter()
            .filter_map(|row| Some(shown_lesson(row, seen.0.get(&row.course)?)))
            .collect(),
        rules: school.rules,
        courses,
        modes: rules::modes().into_iter().map(str::to_owned).collect(),
    }))
}

/// Occurrences as somebody sees them, out of all that are at that time.
struct View<'a> {
    school: &'a School,
    seen: &'a Seen,
    done: HashMap<String, OccurrenceRow>,
    now: UnixMillis,
}

impl View<'_> {
    /// Whether its lesson was there in time; nobody missed what was entered later.
    fn known_before(&self, o: &Occurrence) -> bool {
        let mut rows = self.school.rows.iter();
        rows.any(|row| row.id.as_str() == o.lesson && row.created < o.begin)
    }

    fn shown(&self, o: &Occurrence, clashing: bool) -> Option<api::Occurrence> {
        let (course_name, _) = self.seen.name(&o.course)?;
        let course: CourseId = o.course.parse().ok()?;
        let row = self.done.get(&key(o));
        let starts = self.school.rules.acts && self.school.course(&course).starts;
        let state = match row {
            Some(row) if self.now < o.begin && row.prepared.is_some() => OccurrenceState::Preparing,
            _ if self.now < o.begin => OccurrenceState::Planned,
            _ if self.now < o.end => OccurrenceState::On,
            Some(row) if row.ended.is_none() => OccurrenceState::Ending,
            None if starts && self.known_before(o) => OccurrenceState::Missed,
            _ => OccurrenceState::Done,
        };
        let zone = &self.school.table.zone;
        let clock = |at| zone.civil(at).strftime("%H:%M").to_string();
        let note = row.map(|r| r.note.clone()).unwrap_or_default();
        Some(api::Occurrence {
            lesson: o.lesson.parse().ok()?,
            course,
            course_name: course_name.clone(),
            title: o.title.clone(),
            room: o.room.clone(),
            date: o.date.to_string(),
            day: zone.date(o.begin).to_string(),
            begin_clock: clock(o.begin),
            end_clock: clock(o.end),
            begin: o.begin,
            end: o.end,
            moved: o.moved,
            clashes: clashing,
            state,
            wordings: wordings([note.as_str()]),
            note,
            start_operation: row.and_then(|r| r.start_operation.clone()),
        })
    }
}

async fn view<'a>(
    app: &App,
    school: &'a School,
    seen: &'a Seen,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<View<'a>, ApiFailure> {
    Ok(View {
        school,
        seen,
        done: rows::occurrences(&app.store, from, to)
            .await?
            .into_iter()
            .map(|row| (row.id.clone(), row))
            .collect(),
        now: app.now(),
    })
}

/// What takes place on some days.
#[utoipa::path(get, path = "/timetable/week", params(WeekQuery), responses((status = 200, body = Week)))]
async fn week(
    State(app): State<App>,
    actor: Actor,
    Query(query): Query<WeekQuery>,
) -> Result<Json<Week>, ApiFailure> {
    let school = School::load(&app.store).await?;
    let seen = Seen::by(&app, &actor).await?;
    let zone = &school.table.zone;
    let first = match &query.first {
        Some(text) => day("first", text)?,
        None => {
            let today = zone.date(app.now());
            let since = i64::from(Weekday::of(today).index());
            today.saturating_sub(jiff::ToSpan::days(since))
        }
    };
    let count = query.days.unwrap_or(7);
    if !(1..=400).contains(&count) {
        return Err(ApiFailure::invalid(format!(
            "days is 1 to 400, not {count}"
        )));
    }
    let dates: Vec<jiff::civil::Date> = (0..i64::from(count))
        .map(|n| first.saturating_add(jiff::ToSpan::days(n)))
        .collect();
    let last = dates.last().copied().unwrap_or(first);
    let (from, to) = school.table.days(first, last);
    let view = view(&app, &school, &seen, from, to).await?;
    // A room may be taken by a course that one does not see.
    let all = school.table.between(from, to);
    let clashing: HashSet<usize> = clashes(&all)
        .into_iter()
        .flat_map(|c| [c.first, c.second])
        .collect();
    let occurrences = all
        .iter()
        .enumerate()
        .filter(|(_, o)| query.course.as_ref().is_none_or(|c| c.as_str() == o.course))
        .filter(|(_, o)| query.room.is_none() || query.room == o.room)
        .filter_map(|(i, o)| view.shown(o, clashing.contains(&i)))
        .collect();
    let rooms: BTreeSet<String> = school
        .rows
        .iter()
        .filter(|row| seen.0.contains_key(&row.course))
        .filter_map(|row| row.lesson.room.clone())
        .collect();
    Ok(Json(Week {
        zone: zone.name().to_owned(),
        days: dates
            .into_iter()
            .map(|date| WeekDay {
                date: date.to_string(),
                school: school.table.school_day(date),
                holiday: school.table.holiday(date).map(|h| h.name.clone()),
            })
            .collect(),
        occurrences,
        rooms: rooms.into_iter().collect(),
    }))
}

/// What is on, what comes next, and what the timetable wants of the hosts.
#[utoipa::path(get, path = "/timetable/now", responses((status = 200, body = TimetableNow)))]
async fn now(State(app): State<App>, actor: Actor) -> Result<Json<TimetableNow>, ApiFailure> {
    let school = School::load(&app.store).await?;
    let seen = Seen::by(&app, &actor).await?;
    let at = app.now();
    let demand = demand::of(&app, &school, at).await?;
    let running = school.table.running(at);
    let mut next: Vec<Occurrence> = seen
        .0
        .keys()
        .filter(|id| school.rows.iter().any(|row| row.course == **id))
        .filter_map(|id| school.table.next_bell(Some(id.as_str()), at))
        .collect();
    next.sort_by_key(|o| o.begin);
    let last = next.iter().map(|o| o.end).max().unwrap_or(at);
    let view = view(&app, &school, &seen, at, last.saturating_add(1)).await?;
    Ok(Json(TimetableNow {
        at,
        hours: match demand.hours {
            Hours::Class => HoursKind::Class,
            Hours::Other => HoursKind::Other,
        },
        until: demand.until,
        mode: demand
            .mode
            .map_or(rules::NO_MODE, |m| m.as_str())
            .to_owned(),
        seats_wanted: demand.seats,
        seats_until: demand.seats_until,
        running: running
            .iter()
            .filter_map(|o| view.shown(o, false))
            .collect(),
        next: next.iter().filter_map(|o| view.shown(o, false)).collect(),
    }))
}

/// Change what the timetable does, for the whole school.
#[utoipa::path(patch, path = "/timetable/rules", request_body = TimetableRulesPatch, responses((status = 200, body = TimetableRules)))]
async fn patch_rules(
    State(app): State<App>,
    actor: Actor,
    Json(patch): Json<TimetableRulesPatch>,
) -> Result<Json<TimetableRules>, ApiFailure> {
    actor.require_admin()?;
    let mut tx = app.store.begin_write().await?;
    let before = rules::from_rows(&lyceum_store::settings::all_tx(&mut tx).await?)?;
    let after = rules::patched(before.clone(), patch)?;
    if after != before {
        let as_json = |r: &TimetableRules| serde_json::to_value(r).map_err(ApiFailure::internal);
        let (was, is) = (as_json(&before)?, as_json(&after)?);
        let changed: Vec<String> = is
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, v)| was.get(k) != Some(v))
            .map(|(k, v)| format!("{k}: {} → {v}", was.get(k).unwrap_or_default()))
            .collect();
        lyceum_store::settings::set(&mut tx, rules::KEY, &is).await?;
        tx.touch("timetable", "rules");
        audit::write(
            &mut tx,
            &actor,
            "timetable.rules",
            "timetable/rules",
            changed.join("; "),
        )
        .await?;
        tx.commit().await?;
    }
    Ok(Json(after))
}

/// Add a lesson.
#[utoipa::path(post, path = "/timetable/lessons", request_body = LessonPut, responses((status = 201, body = api::Lesson)))]
async fn create(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<LessonPut>,
) -> Result<(StatusCode, Json<api::Lesson>), ApiFailure> {
    let course = actor.require_course_staff(&app, &body.course).await?;
    let id = LessonId::new();
    let row = LessonRow {
        lesson: lesson(&id, &body)?,
        id,
        course: body.course,
        uid: None,
        created: app.now(),
    };
    let mut tx = app.store.begin_write().await?;
    if rows::lessons_tx(&mut tx).await?.len() >= LESSONS {
        return Err(ApiFailure::state(format!(
            "there are {LESSONS} lessons already: delete old ones first"
        )));
    }
    rows::put_lesson(&mut tx, &row).await?;
    let detail = format!("{} {}", course.name, told(&row.lesson));
    write(&mut tx, &actor, "timetable.add", &row.id, &detail).await?;
    tx.commit().await?;
    Ok((
        StatusCode::CREATED,
        Json(shown_lesson(&row, &(course.name, true))),
    ))
}

async fn write(
    tx: &mut Tx,
    actor: &Actor,
    action: &str,
    id: &LessonId,
    detail: &str,
) -> Result<(), ApiFailure> {
    audit::write(tx, actor, action, format!("lesson/{id}"), detail).await
}

/// A lesson in the audit log.
fn told(l: &Lesson) -> String {
    let day = match l.when {
        When::Weekly { weekday, .. } => weekday.to_string(),
        When::Once { date } => date.to_string(),
    };
    format!("{day} {}-{}", l.begin, l.end())
}

/// A lesson of a course that the actor runs, with the course's title.
async fn editable(
    app: &App,
    actor: &Actor,
    id: &LessonId,
) -> Result<(LessonRow, String), ApiFailure> {
    let row = rows::lessons(&app.store)
        .await?
        .into_iter()
        .find(|row| row.id == *id)
        .ok_or_else(|| ApiFailure::not_found("lesson"))?;
    let course = actor.require_course_staff(app, &row.course).await?;
    Ok((row, course.name))
}

/// Change a lesson. Exceptions on days that its rule still names stay.
#[utoipa::path(put, path = "/timetable/lessons/{id}", params(("id" = LessonId, Path)), request_body = LessonPut,
    responses((status = 200, body = api::Lesson)))]
async fn put(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<LessonId>,
    Json(body): Json<LessonPut>,
) -> Result<Json<api::Lesson>, ApiFailure> {
    editable(&app, &actor, &id).await?;
    let course = actor.require_course_staff(&app, &body.course).await?;
    let mut new = lesson(&id, &body)?;
    let mut tx = app.store.begin_write().await?;
    let mut row = rows::lesson_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("lesson"))?;
    if matches!(new.when, When::Weekly { .. }) {
        let mut exceptions = std::mem::take(&mut row.lesson.exceptions);
        exceptions.retain(|date, _| new.names(*date));
        new.exceptions = exceptions;
    }
    let detail = format!("{}: {} → {}", course.name, told(&row.lesson), told(&new));
    row.lesson = new;
    row.course = body.course;
    rows::put_lesson(&mut tx, &row).await?;
    write(&mut tx, &actor, "timetable.change", &id, &detail).await?;
    tx.commit().await?;
    Ok(Json(shown_lesson(&row, &(course.name, true))))
}

/// Delete a lesson.
#[utoipa::path(delete, path = "/timetable/lessons/{id}", params(("id" = LessonId, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<LessonId>,
) -> Result<StatusCode, ApiFailure> {
    let (row, course) = editable(&app, &actor, &id).await?;
    let mut tx = app.store.begin_write().await?;
    rows::delete_lesson(&mut tx, &id).await?;
    let detail = format!("{course} {}", told(&row.lesson));
    write(&mut tx, &actor, "timetable.delete", &id, &detail).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Have one occurrence of a weekly lesson cancelled or moved.
#[utoipa::path(put, path = "/timetable/lessons/{id}/exceptions/{date}", params(("id" = LessonId, Path), ("date" = String, Path)),
    request_body = LessonExceptionPut, responses((status = 200, body = api::Lesson)))]
async fn put_exception(
    State(app): State<App>,
    actor: Actor,
    Path((id, date)): Path<(LessonId, String)>,
    Json(body): Json<LessonExceptionPut>,
) -> Result<Json<api::Lesson>, ApiFailure> {
    let (_, course) = editable(&app, &actor, &id).await?;
    let date = day("the day", &date)?;
    let exception = match (body.cancelled, &body.to_date, &body.begin, &body.end) {
        (true, None, None, None) => Exception::Cancelled,
        (false, Some(to), Some(begin), Some(end)) => {
            let begin: Clock = value("begin", begin, "08:10")?;
            Exception::Moved {
                date: day("to_date", to)?,
                begin,
                minutes: begin.until(value("end", end, "10:00")?),
                room: room(body.room.as_deref())?,
            }
        }
        _ => {
            return Err(ApiFailure::invalid(
                "an exception is either cancelled, or has all of to_date, begin and end",
            ));
        }
    };
    let mut tx = app.store.begin_write().await?;
    let mut row = rows::lesson_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("lesson"))?;
    if matches!(row.lesson.when, When::Once { .. }) || !row.lesson.names(date) {
        return Err(ApiFailure::invalid(format!(
            "the lesson does not take place on {date}, so there is nothing to change on that day"
        )));
    }
    row.lesson.exceptions.insert(date, exception);
    if row.lesson.exceptions.len() > EXCEPTIONS {
        return Err(ApiFailure::state(format!(
            "the lesson has {EXCEPTIONS} exceptions already: end it and add a new one"
        )));
    }
    rows::put_lesson(&mut tx, &row).await?;
    let what = if body.cancelled { "cancelled" } else { "moved" };
    let detail = format!("{course} {date}: {what}");
    write(&mut tx, &actor, "timetable.except", &id, &detail).await?;
    tx.commit().await?;
    Ok(Json(shown_lesson(&row, &(course, true))))
}

/// Have it take place as its rule says again.
#[utoipa::path(delete, path = "/timetable/lessons/{id}/exceptions/{date}", params(("id" = LessonId, Path), ("date" = String, Path)),
    responses((status = 200, body = api::Lesson)))]
async fn delete_exception(
    State(app): State<App>,
    actor: Actor,
    Path((id, date)): Path<(LessonId, String)>,
) -> Result<Json<api::Lesson>, ApiFailure> {
    let (_, course) = editable(&app, &actor, &id).await?;
    let date = day("the day", &date)?;
    let mut tx = app.store.begin_write().await?;
    let mut row = rows::lesson_tx(&mut tx, &id)
        .await?
        .ok_or_else(|| ApiFailure::not_found("lesson"))?;
    if row.lesson.exceptions.remove(&date).is_some() {
        rows::put_lesson(&mut tx, &row).await?;
        let detail = format!("{course} {date}: as always");
        write(&mut tx, &actor, "timetable.except", &id, &detail).await?;
        tx.commit().await?;
    }
    Ok(Json(shown_lesson(&row, &(course, true))))
}

fn school_days(id: SchoolDaysId, body: &SchoolDaysPut) -> Result<SchoolDays, ApiFailure> {
    let days = SchoolDays {
        id,
        kind: match body.kind {
            SchoolDaysKind::Term => DaysKind::Term,
            SchoolDaysKind::Holiday => DaysKind::Holiday,
        },
        span: Span {
            name: name::title("the days' name", &body.name, ROOM)?,
            first: day("first", &body.first)?,
            last: day("last", &body.last)?,
        },
    };
    let length = Timetable::count_days(days.span.first, days.span.last);
    if !(1..=800).contains(&length) {
        return Err(ApiFailure::invalid(
            "a term or holiday ends on its first day or later, and lasts at most 800 days",
        ));
    }
    Ok(days)
}

async fn write_days(
    app: &App,
    actor: &Actor,
    days: &SchoolDays,
    action: &str,
) -> Result<(), ApiFailure> {
    let mut tx = app.store.begin_write().await?;
    let detail = format!(
        "{} {} to {}",
        days.span.name, days.span.first, days.span.last
    );
    if action == "timetable.delete-days" {
        rows::delete_school_days(&mut tx, &days.id).await?;
    } else {
        rows::put_school_days(&mut tx, days).await?;
    }
    audit::write(&mut tx, actor, action, format!("days/{}", days.id), detail).await?;
    tx.commit().await?;
    Ok(())
}

async fn find_days(app: &App, id: &SchoolDaysId) -> Result<SchoolDays, ApiFailure> {
    rows::school_days(&app.store)
        .await?
        .into_iter()
        .find(|d| d.id == *id)
        .ok_or_else(|| ApiFailure::not_found("term or holiday"))
}

/// Add a term or a holiday.
#[utoipa::path(post, path = "/timetable/days", request_body = SchoolDaysPut, responses((status = 201, body = api::SchoolDays)))]
async fn create_days(
    State(app): State<App>,
    actor: Actor,
    Json(body): Json<SchoolDaysPut>,
) -> Result<(StatusCode, Json<api::SchoolDays>), ApiFailure> {
    actor.require_admin()?;
    let days = school_days(SchoolDaysId::new(), &body)?;
    write_days(&app, &actor, &days, "timetable.add-days").await?;
    Ok((StatusCode::CREATED, Json(shown_days(&days))))
}

/// Change a term or a holiday.
#[utoipa::path(put, path = "/timetable/days/{id}", params(("id" = SchoolDaysId, Path)), request_body = SchoolDaysPut,
    responses((status = 200, body = api::SchoolDays)))]
async fn put_days(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<SchoolDaysId>,
    Json(body): Json<SchoolDaysPut>,
) -> Result<Json<api::SchoolDays>, ApiFailure> {
    actor.require_admin()?;
    let days = school_days(find_days(&app, &id).await?.id, &body)?;
    write_days(&app, &actor, &days, "timetable.change-days").await?;
    Ok(Json(shown_days(&days)))
}

/// Delete a term or a holiday.
#[utoipa::path(delete, path = "/timetable/days/{id}", params(("id" = SchoolDaysId, Path)), responses((status = 204)))]
async fn delete_days(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<SchoolDaysId>,
) -> Result<StatusCode, ApiFailure> {
    actor.require_admin()?;
    let days = find_days(&app, &id).await?;
    write_days(&app, &actor, &days, "timetable.delete-days").await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the timetable does for a course.
#[utoipa::path(get, path = "/courses/{id}/timetable", params(("id" = CourseId, Path)), responses((status = 200, body = CourseTimetable)))]
async fn get_course(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
) -> Result<Json<CourseTimetable>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    let school = School::load(&app.store).await?;
    Ok(Json(shown_rules(school.course(&id))))
}

/// Say what the timetable does for a course.
#[utoipa::path(put, path = "/courses/{id}/timetable", params(("id" = CourseId, Path)), request_body = CourseTimetable,
    responses((status = 200, body = CourseTimetable)))]
async fn put_course(
    State(app): State<App>,
    actor: Actor,
    Path(id): Path<CourseId>,
    Json(body): Json<CourseTimetable>,
) -> Result<Json<CourseTimetable>, ApiFailure> {
    actor.require_course_staff(&app, &id).await?;
    if body.grace_minutes > 240 {
        return Err(ApiFailure::invalid(format!(
            "grace_minutes is 0 to 240, not {}",
            body.grace_minutes
        )));
    }
    let new = CourseRules {
        starts: body.starts,
        at_end: match body.at_end {
            LessonEnd::Suspend => AtEnd::Suspend,
            LessonEnd::Reset => AtEnd::Reset,
            LessonEnd::Stop => AtEnd::Stop,
            LessonEnd::Keep => AtEnd::Keep,
        },
        grace_minutes: body.grace_minutes,
    };
    let mut tx = app.store.begin_write().await?;
    rows::put_course_rules(&mut tx, &id, new).await?;
    audit::write(
        &mut tx,
        &actor,
        "timetable.course",
        format!("course/{id}"),
        format!(
            "starts: {}; at the end: {}; grace: {} min",
            new.starts,
            lyceum_store::word(&new.at_end),
            new.grace_minutes
        ),
    )
    .await?;
    tx.commit().await?;
    Ok(Json(shown_rules(new)))
}
