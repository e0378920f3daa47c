//! What a calendar file would change: a pure function of the file and of what is there.

use lyceum_api::timetable::{
    CalendarFile, FileChange, FileLesson, FileProblem, FileResult, SchoolDaysKind, SchoolDaysPut,
};
use lyceum_api::wording::wordings;
use lyceum_model::{CourseId, LessonId, UnixMillis};
use lyceum_store::timetable::{DaysKind, LessonRow, SchoolDays};
use lyceum_timetable::ics::{self, Calendar, IcsError};
use lyceum_timetable::{Lesson, Span, When, Zone};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A course that the one who imports may change.
#[derive(Debug, Clone)]
pub struct MyCourse {
    /// Which.
    pub id: CourseId,
    /// Title.
    pub name: String,
}

/// What is written when the file is taken over.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What people are told.
    pub result: FileResult,
    /// Rows that are new or changed.
    pub put: Vec<LessonRow>,
    /// Rows that go.
    pub delete: Vec<LessonId>,
    /// Holidays that are new.
    pub holidays: Vec<Span>,
}

/// Compares a file with what is there. `mine`: the courses that may be changed.
pub fn plan(
    file: &CalendarFile,
    zone: &Zone,
    mine: &[MyCourse],
    rows: &[LessonRow],
    days: &[SchoolDays],
    now: UnixMillis,
) -> Result<Plan, IcsError> {
    let found = ics::read(&file.ics, zone)?;
    let names: HashMap<&CourseId, &str> = mine.iter().map(|c| (&c.id, c.name.as_str())).collect();
    let by_title: HashMap<String, &CourseId> =
        mine.iter().map(|c| (folded(&c.name), &c.id)).collect();
    let course_of = |summary: &str| -> Option<&CourseId> {
        file.course
            .as_ref()
            .or_else(|| file.courses.get(summary))
            .or_else(|| by_title.get(&folded(summary)).copied())
            .filter(|id| names.contains_key(id))
    };
    let there: HashMap<(&CourseId, &str), &LessonRow> = rows
        .iter()
        .filter_map(|row| Some(((&row.course, row.uid.as_deref()?), row)))
        .collect();
    let mut plan = Plan {
        result: FileResult {
            lessons: Vec::new(),
            holidays: Vec::new(),
            problems: problems(&found),
            unknown_courses: Vec::new(),
            removed: 0,
            wordings: Default::default(),
        },
        put: Vec::new(),
        delete: Vec::new(),
        holidays: Vec::new(),
    };
    let mut unknown = BTreeSet::new();
    let mut seen: HashSet<(CourseId, String)> = HashSet::new();
    let mut touched: BTreeSet<CourseId> = file.course.clone().into_iter().collect();
    for f in &found.lessons {
        let Some(course) = course_of(&f.summary) else {
            unknown.insert(f.summary.clone());
            plan.result
                .lessons
                .push(shown(f.line, &f.summary, None, &f.lesson, FileChange::New));
            continue;
        };
        touched.insert(course.clone());
        // Two events of one name are two lessons all the same.
        let mut uid = f.uid.clone();
        let mut n = 1;
        while !seen.insert((course.clone(), uid.clone())) {
            n += 1;
            uid = format!("{}#{n}", f.uid);
        }
        let old = there.get(&(course, uid.as_str())).copied();
        let id = old.map_or_else(LessonId::new, |row| row.id.clone());
        let lesson = Lesson {
            id: id.to_string(),
            course: course.to_string(),
            // The event's own title, where it is not the course's.
            title: if file.course.is_some() && folded(&f.summary) != folded(names[course]) {
                f.summary.clone()
            } else {
                String::new()
            },
            ..f.lesson.clone()
        };
        let change = match old {
            None => FileChange::New,
            Some(row) if row.lesson == lesson => FileChange::Same,
            Some(_) => FileChange::Changed,
        };
        let name = names.get(course).map(|n| (*n).to_owned());
        plan.result
            .lessons
            .push(shown(f.line, &f.summary, name, &lesson, change));
        if change != FileChange::Same {
            plan.put.push(LessonRow {
                id,
                course: course.clone(),
                uid: Some(uid.clone()),
                lesson,
                created: old.map_or(now, |row| row.created),
            });
        }
    }
    if file.replace {
        plan.delete = rows
            .iter()
            .filter(|row| touched.contains(&row.course) && names.contains_key(&row.course))
            .filter(|row| {
                row.uid
                    .as_ref()
                    .is_some_and(|uid| !seen.contains(&(row.course.clone(), uid.clone())))
            })
            .map(|row| row.id.clone())
            .collect();
    }
    if file.holidays {
        holidays(&mut plan, &found, days);
    }
    plan.result.removed = plan.delete.len() as u32;
    plan.result.unknown_courses = unknown.into_iter().collect();
    plan.result.wordings = wordings(plan.result.problems.iter().map(|p| p.message.as_str()));
    Ok(plan)
}

fn holidays(plan: &mut Plan, found: &Calendar, days: &[SchoolDays]) {
    let mut known: BTreeMap<_, ()> = days
        .iter()
        .filter(|d| d.kind == DaysKind::Holiday)
        .map(|d| ((d.span.first, d.span.last), ()))
        .collect();
    for span in &found.days {
        if known.insert((span.first, span.last), ()).is_some() {
            continue;
        }
        plan.result.holidays.push(SchoolDaysPut {
            kind: SchoolDaysKind::Holiday,
            name: span.name.clone(),
            first: span.first.to_string(),
            last: span.last.to_string(),
        });
        plan.holidays.push(span.clone());
    }
}

fn problems(found: &Calendar) -> Vec<FileProblem> {
    found
        .problems
        .iter()
        .map(|p| FileProblem {
            line: p.line as u32,
            summary: p.summary.clone(),
            message: p.why.clone(),
        })
        .collect()
}

fn shown(
    line: usize,
    summary: &str,
    course_name: Option<String>,
    lesson: &Lesson,
    change: FileChange,
) -> FileLesson {
    let (weekday, date, every_weeks, from, until) = match lesson.when {
        When::Weekly {
            weekday,
            every_weeks,
            from,
            until,
        } => (Some(weekday), None, every_weeks, from, until),
        When::Once { date } => (None, Some(date), 1, None, None),
    };
    FileLesson {
        line: line as u32,
        summary: summary.to_owned(),
        course_name,
        room: lesson.room.clone(),
        weekday: weekday.map(|d| d.to_string()),
        date: date.map(|d| d.to_string()),
        begin: lesson.begin.to_string(),
        end: lesson.end().to_string(),
        every_weeks,
        from: from.map(|d| d.to_string()),
        until: until.map(|d| d.to_string()),
        exceptions: lesson.exceptions.len() as u32,
        change,
    }
}

/// As titles are compared: without regard to case and space around.
fn folded(title: &str) -> String {
    title.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_model::SchoolDaysId;

    const FILE: &str = "BEGIN:VCALENDAR\n\
BEGIN:VEVENT\nUID:a\nSUMMARY:maths\nDTSTART:20260907T080000\nDTEND:20260907T093000\nRRULE:FREQ=WEEKLY\nEND:VEVENT\n\
BEGIN:VEVENT\nUID:b\nSUMMARY:Physics\nDTSTART:20260908T080000\nDTEND:20260908T093000\nEND:VEVENT\n\
BEGIN:VEVENT\nUID:c\nSUMMARY:Maths\nDTSTART:20260908T080000\nDTEND:20260908T093000\nRRULE:FREQ=MONTHLY\nEND:VEVENT\n\
BEGIN:VEVENT\nUID:h\nSUMMARY:Autumn\nDTSTART;VALUE=DATE:20261003\nEND:VEVENT\nEND:VCALENDAR\n";

    fn file() -> CalendarFile {
        CalendarFile {
            ics: FILE.into(),
            holidays: true,
            replace: true,
            ..CalendarFile::default()
        }
    }

    fn mine() -> Vec<MyCourse> {
        vec![MyCourse {
            id: "m".parse().unwrap(),
            name: "Maths".into(),
        }]
    }

    #[test]
    fn a_file_is_compared_with_what_is_there() {
        let zone = Zone::utc();
        let first = plan(&file(), &zone, &mine(), &[], &[], 5).unwrap();
        assert_eq!(first.put.len(), 1);
        assert_eq!(first.result.unknown_courses, ["Physics"]);
        assert_eq!(first.result.problems[0].line, 20);
        assert_eq!(first.holidays.len(), 1);
        // Again: nothing changes, but a lesson that an earlier file brought goes, and one by hand stays.
        let mut earlier = first.put[0].clone();
        earlier.id = "earlier".parse().unwrap();
        earlier.uid = Some("old".into());
        let mut by_hand = earlier.clone();
        by_hand.uid = None;
        let days = [SchoolDays {
            id: SchoolDaysId::new(),
            kind: DaysKind::Holiday,
            span: first.holidays[0].clone(),
        }];
        let rows = [first.put[0].clone(), earlier, by_hand];
        let again = plan(&file(), &zone, &mine(), &rows, &days, 6).unwrap();
        assert_eq!((again.put.len(), again.holidays.len()), (0, 0));
        assert_eq!(again.result.lessons[0].change, FileChange::Same);
        assert_eq!(again.delete, ["earlier".parse().unwrap()]);
        // What somebody may not change is not changed, whatever the file says.
        let all = CalendarFile {
            course: Some("other".parse().unwrap()),
            ..file()
        };
        let none = plan(&all, &zone, &mine(), &rows, &days, 6).unwrap();
        assert_eq!((none.put.len(), none.delete.len()), (0, 0));
        // A title may mean a course.
        let named = CalendarFile {
            courses: [("Physics".to_owned(), "m".parse().unwrap())].into(),
            ..file()
        };
        let more = plan(&named, &zone, &mine(), &[], &[], 6).unwrap();
        assert_eq!(more.put.len(), 2);
        assert!(more.result.unknown_courses.is_empty());
    }
}
