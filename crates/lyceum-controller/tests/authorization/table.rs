//! Who may ask for what: one row for every operation of the API.

use crate::world::{LINK, PASSWORD};
use serde_json::{Value, json};

/// A row: method, path in `openapi.json`, the path to try, its body, and for
/// anonymous, student, other student, other teacher, teacher, admin what to expect:
///
/// - `A` allowed (whatever else may be in the way)
/// - `U` 401, nobody is signed in
/// - `F` 403, may not
/// - `N` 404, may not even know that it is there
/// - `M` 400, allowed, but the request is not one that this test can make
pub struct Row {
    pub method: &'static str,
    pub template: &'static str,
    pub path: &'static str,
    pub body: Option<Value>,
    pub expected: &'static str,
}

fn row(
    method: &'static str,
    template: &'static str,
    path: &'static str,
    expected: &'static str,
) -> Row {
    Row {
        method,
        template,
        path,
        body: None,
        expected,
    }
}

fn with(mut row: Row, body: Value) -> Row {
    row.body = Some(body);
    row
}

/// A plan that was shown and could be carried out.
pub fn plan_shown() -> lyceum_store::plans::Plan {
    use lyceum_placement::{PlanPolicy, Snapshot, plan};
    let snapshot = Snapshot::default();
    let policy = PlanPolicy::default();
    let text = |v: serde_json::Result<String>| v.unwrap();
    lyceum_store::plans::Plan {
        id: "plan-a".parse().unwrap(),
        at: 1,
        mode: policy.mode.as_str().into(),
        reason: String::new(),
        ordered_by: None,
        state: lyceum_store::plans::State::Shown,
        message: String::new(),
        stop: false,
        plan: text(serde_json::to_string(&plan(&snapshot, &policy, 1).unwrap())),
        snapshot: text(serde_json::to_string(&snapshot)),
        policy: text(serde_json::to_string(&policy)),
        steps: Vec::new(),
        acted_at: None,
        changed: 1,
        ended: Some(1),
    }
}

/// The table.
#[rustfmt::skip]
pub fn table() -> Vec<Row> {
    // What a person's own things, a course's members and staff, teachers, admins may.
    const ANYBODY: &str = "AAAAAA";
    const SIGNED_IN: &str = "UAAAAA";
    const MEMBERS: &str = "UANNAA";
    const STAFF: &str = "UFNNAA";
    const UNSEEN: &str = "UNNNAA";
    const TEACHERS: &str = "UFFAAA";
    const ADMINS: &str = "UFFFFA";
    let csv = json!({"csv": "login\nstudent\n", "remove_missing": false, "create_accounts": false});
    const ICS: &str = "BEGIN:VCALENDAR\nEND:VCALENDAR";
    let lesson = json!({"course": "course-a", "weekday": "mon", "begin": "08:10", "end": "10:00"});
    let days = json!({"kind": "holiday", "name": "h", "first": "2026-11-23", "last": "2026-11-23"});
    vec![
        row("GET", "/health", "/health", ANYBODY),
        with(row("POST", "/session", "/session", ANYBODY), json!({"login": "student", "password": PASSWORD})),
        with(row("POST", "/session/one-time", "/session/one-time", ANYBODY), json!({"secret": LINK, "new_password": null})),
        row("GET", "/session", "/session", SIGNED_IN),
        row("DELETE", "/session", "/session", SIGNED_IN),
        row("GET", "/sessions", "/sessions", SIGNED_IN),
        // Sessions are nobody's but one's own.
        row("DELETE", "/sessions/{id}", "/sessions/session-student", "UANNNN"),
        with(row("POST", "/password", "/password", SIGNED_IN), json!({"old_password": null, "new_password": "another one"})),
        row("GET", "/events", "/events", SIGNED_IN),
        row("GET", "/desktops", "/desktops", SIGNED_IN),
        row("GET", "/desktops", "/desktops?course=course-a", STAFF),
        row("GET", "/desktops", "/desktops?all=true", TEACHERS),
        with(row("POST", "/desktops", "/desktops", MEMBERS), json!({"course": "course-a", "user": "student"})),
        with(row("POST", "/desktops", "/desktops", STAFF), json!({"course": "course-a", "user": "teacher"})),
        row("GET", "/desktops/{id}", "/desktops/desktop-a", MEMBERS),
        row("DELETE", "/desktops/{id}", "/desktops/desktop-a", STAFF),
        with(row("POST", "/desktops/{id}/start", "/desktops/desktop-a/start", MEMBERS), json!({"cold": false})),
        row("POST", "/desktops/{id}/stop", "/desktops/desktop-a/stop", MEMBERS),
        row("POST", "/desktops/{id}/suspend", "/desktops/desktop-a/suspend", MEMBERS),
        row("POST", "/desktops/{id}/reset", "/desktops/desktop-a/reset", MEMBERS),
        row("GET", "/desktops/{id}/history", "/desktops/desktop-a/history", STAFF),
        row("GET", "/desktops/{id}/disk", "/desktops/desktop-a/disk", STAFF),
        row("POST", "/desktops/{id}/console-ticket", "/desktops/desktop-a/console-ticket", MEMBERS),
        row("GET", "/desktops/{id}/clipboard", "/desktops/desktop-a/clipboard", MEMBERS),
        with(row("PUT", "/desktops/{id}/clipboard", "/desktops/desktop-a/clipboard", MEMBERS), json!({"text": "x"})),
        // What a ticket opens was decided when it was made; it is bound to who asked for it.
        row("GET", "/desktops/{id}/viewers", "/desktops/desktop-a/viewers", MEMBERS),
        row("POST", "/desktops/{id}/native-viewer", "/desktops/desktop-a/native-viewer", MEMBERS),
        row("POST", "/desktops/{id}/spice-viewer", "/desktops/desktop-a/spice-viewer", MEMBERS),
        row("GET", "/console/{ticket}", "/console/no-such-ticket", "UMMMMM"),
        row("GET", "/courses", "/courses", SIGNED_IN),
        with(row("POST", "/courses", "/courses", TEACHERS), json!({"name": "New", "image": "image-a", "release": null, "size": null, "persistence": "throwaway"})),
        row("GET", "/courses/{id}", "/courses/course-a", MEMBERS),
        with(row("PATCH", "/courses/{id}", "/courses/course-a", STAFF), json!({"name": "Changed"})),
        row("DELETE", "/courses/{id}", "/courses/course-a", ADMINS),
        with(row("POST", "/courses/{id}/start", "/courses/course-a/start", STAFF), json!({"users": null, "cold": false})),
        with(row("POST", "/courses/{id}/stop", "/courses/course-a/stop", STAFF), json!({"users": null})),
        with(row("POST", "/courses/{id}/suspend", "/courses/course-a/suspend", STAFF), json!({"users": null})),
        with(row("POST", "/courses/{id}/reset", "/courses/course-a/reset", STAFF), json!({"users": null})),
        with(row("POST", "/courses/{id}/hand-out", "/courses/course-a/hand-out", STAFF), json!({"desktop": "desktop-t", "users": null})),
        row("GET", "/desktops/{id}/restore-points", "/desktops/desktop-a/restore-points", MEMBERS),
        with(row("POST", "/desktops/{id}/restore-points", "/desktops/desktop-a/restore-points", STAFF), json!({"note": "x"})),
        with(row("POST", "/desktops/{id}/restore", "/desktops/desktop-a/restore", STAFF), json!({"point": "point-a"})),
        row("POST", "/desktops/{id}/undo-restore", "/desktops/desktop-a/undo-restore", STAFF),
        row("DELETE", "/restore-points/{id}", "/restore-points/point-a", STAFF),
        row("GET", "/courses/{id}/restore-points", "/courses/course-a/restore-points", STAFF),
        with(row("POST", "/courses/{id}/restore-points", "/courses/course-a/restore-points", STAFF), json!({"note": "x", "users": null})),
        with(row("POST", "/courses/{id}/restore", "/courses/course-a/restore", STAFF), json!({"batch": "batch-a"})),
        row("POST", "/courses/{id}/undo-restore", "/courses/course-a/undo-restore", STAFF),
        row("DELETE", "/courses/{id}/restore-points/{batch}", "/courses/course-a/restore-points/batch-a", STAFF),
        row("GET", "/courses/{id}/point-schedule", "/courses/course-a/point-schedule", STAFF),
        with(row("PUT", "/courses/{id}/point-schedule", "/courses/course-a/point-schedule", STAFF), json!({"every_min": 10, "keep_last": 6, "keep_hourly": 0, "own_restore": true})),
        row("GET", "/courses/{id}/roster", "/courses/course-a/roster", STAFF),
        row("GET", "/courses/{id}/network", "/courses/course-a/network", STAFF),
        with(row("PATCH", "/courses/{id}/network", "/courses/course-a/network", STAFF), json!({"internet": "list", "allowed": ["example.org"]})),
        // 409 for those who may: there is no gateway here.
        with(row("PUT", "/courses/{id}/exam", "/courses/course-a/exam", STAFF), json!({"until": 1})),
        row("DELETE", "/courses/{id}/exam", "/courses/course-a/exam", STAFF),
        row("GET", "/network", "/network", TEACHERS),
        row("GET", "/network/gateway", "/network/gateway", ADMINS),
        with(row("PUT", "/network/gateway", "/network/gateway", ADMINS), json!({"revision": "x", "problem": null, "repaired": []})),
        with(row("POST", "/courses/{id}/roster/preview", "/courses/course-a/roster/preview", STAFF), csv.clone()),
        with(row("PUT", "/courses/{id}/roster", "/courses/course-a/roster", STAFF), csv),
        with(row("PUT", "/courses/{id}/members/{user}", "/courses/course-a/members/spare", STAFF), json!({"role": "student"})),
        row("DELETE", "/courses/{id}/members/{user}", "/courses/course-a/members/student", STAFF),
        row("GET", "/timetable", "/timetable", SIGNED_IN),
        row("GET", "/timetable/week", "/timetable/week?first=2026-11-23", SIGNED_IN),
        row("GET", "/timetable/now", "/timetable/now", SIGNED_IN),
        with(row("PATCH", "/timetable/rules", "/timetable/rules", ADMINS), json!({"acts": true})),
        with(row("POST", "/timetable/lessons", "/timetable/lessons", STAFF), lesson.clone()),
        with(row("PUT", "/timetable/lessons/{id}", "/timetable/lessons/lesson-a", STAFF), lesson),
        row("DELETE", "/timetable/lessons/{id}", "/timetable/lessons/lesson-a", STAFF),
        with(row("PUT", "/timetable/lessons/{id}/exceptions/{date}", "/timetable/lessons/lesson-a/exceptions/2026-11-23", STAFF), json!({"cancelled": true})),
        row("DELETE", "/timetable/lessons/{id}/exceptions/{date}", "/timetable/lessons/lesson-a/exceptions/2026-11-23", STAFF),
        with(row("POST", "/timetable/days", "/timetable/days", ADMINS), days.clone()),
        with(row("PUT", "/timetable/days/{id}", "/timetable/days/days-a", ADMINS), days),
        row("DELETE", "/timetable/days/{id}", "/timetable/days/days-a", ADMINS),
        row("GET", "/courses/{id}/timetable", "/courses/course-a/timetable", STAFF),
        with(row("PUT", "/courses/{id}/timetable", "/courses/course-a/timetable", STAFF), json!({"starts": true, "at_end": "suspend", "grace_minutes": 5})),
        with(row("POST", "/timetable/import/preview", "/timetable/import/preview", STAFF), json!({"ics": ICS, "course": "course-a"})),
        with(row("POST", "/timetable/import", "/timetable/import", STAFF), json!({"ics": ICS, "course": "course-a"})),
        // Of all one's courses; holidays are everybody's.
        with(row("POST", "/timetable/import", "/timetable/import", TEACHERS), json!({"ics": ICS})),
        with(row("POST", "/timetable/import", "/timetable/import", ADMINS), json!({"ics": ICS, "holidays": true})),
        row("GET", "/operations", "/operations", TEACHERS),
        row("GET", "/operations/{id}", "/operations/operation-a", UNSEEN),
        row("POST", "/operations/{id}/cancel", "/operations/operation-a/cancel", UNSEEN),
        row("GET", "/images", "/images", TEACHERS),
        with(row("POST", "/images", "/images", TEACHERS), json!({"name": "New"})),
        row("GET", "/images/{id}", "/images/image-a", TEACHERS),
        with(row("PATCH", "/images/{id}", "/images/image-a", TEACHERS), json!({"description": "x"})),
        row("DELETE", "/images/{id}", "/images/image-c", ADMINS),
        with(row("POST", "/images/{id}/draft", "/images/image-c/draft", TEACHERS), json!({"source": {"from": "empty", "disk_gib": 1}, "size": null})),
        row("GET", "/drafts/{id}", "/drafts/draft-a", TEACHERS),
        row("DELETE", "/drafts/{id}", "/drafts/draft-a", TEACHERS),
        row("POST", "/drafts/{id}/start", "/drafts/draft-a/start", TEACHERS),
        row("POST", "/drafts/{id}/stop", "/drafts/draft-a/stop", TEACHERS),
        with(row("POST", "/drafts/{id}/seal", "/drafts/draft-a/seal", TEACHERS), json!({"note": ""})),
        row("POST", "/drafts/{id}/console-ticket", "/drafts/draft-a/console-ticket", TEACHERS),
        row("PUT", "/drafts/{id}/upload", "/drafts/draft-a/upload?name=disk.qcow2", TEACHERS),
        row("GET", "/releases/{id}", "/releases/release-a", TEACHERS),
        row("DELETE", "/releases/{id}", "/releases/release-a", ADMINS),
        row("POST", "/releases/{id}/retire", "/releases/release-a/retire", TEACHERS),
        row("POST", "/releases/{id}/offer", "/releases/release-a/offer", TEACHERS),
        row("GET", "/hosts", "/hosts", TEACHERS),
        with(row("PATCH", "/hosts/{id}", "/hosts/kvm1", ADMINS), json!({"state": "draining"})),
        row("GET", "/hosts/{id}/samples", "/hosts/kvm1/samples?hours=2", TEACHERS),
        row("GET", "/hosts/{id}/power", "/hosts/kvm1/power", ADMINS),
        with(row("PUT", "/hosts/{id}/power", "/hosts/kvm1/power", ADMINS), json!({"setup": {"watts": 100.0}, "password": "x"})),
        row("POST", "/hosts/{id}/power/on", "/hosts/kvm1/power/on", ADMINS),
        row("POST", "/hosts/{id}/power/off", "/hosts/kvm1/power/off", ADMINS),
        row("GET", "/energy", "/energy", TEACHERS),
        row("GET", "/desktops/{id}/samples", "/desktops/desktop-a/samples", STAFF),
        row("GET", "/samples/sessions", "/samples/sessions", ADMINS),
        row("GET", "/allocation", "/allocation", ADMINS),
        with(row("PUT", "/allocation", "/allocation", ADMINS), json!({"every_minutes": 7})),
        row("GET", "/plans", "/plans", ADMINS),
        with(row("POST", "/plans", "/plans", ADMINS), json!({"mode": "memory-balance"})),
        row("GET", "/plans/{id}", "/plans/plan-a", ADMINS),
        row("POST", "/plans/{id}/run", "/plans/plan-a/run", ADMINS),
        row("POST", "/plans/{id}/stop", "/plans/plan-a/stop", ADMINS),
        row("GET", "/moves", "/moves", TEACHERS),
        with(row("POST", "/desktops/{id}/move", "/desktops/desktop-a/move", STAFF), json!({"to": null})),
        row("PUT", "/desktops/{id}/pin", "/desktops/desktop-a/pin", STAFF),
        row("DELETE", "/desktops/{id}/pin", "/desktops/desktop-a/pin", STAFF),
        row("POST", "/hosts/{id}/drain", "/hosts/kvm1/drain", ADMINS),
        row("POST", "/hosts/{id}/resume", "/hosts/kvm1/resume", ADMINS),
        row("GET", "/storage", "/storage", TEACHERS),
        with(row("POST", "/join-tokens", "/join-tokens", ADMINS), json!({"kind": "host", "name": "kvm2"})),
        row("GET", "/users", "/users", TEACHERS),
        with(row("POST", "/users", "/users", ADMINS), json!({"login": "new", "name": "New", "role": "student", "password": null})),
        with(row("PATCH", "/users/{id}", "/users/spare", ADMINS), json!({"name": "Changed"})),
        row("DELETE", "/users/{id}", "/users/spare", ADMINS),
        row("POST", "/users/{id}/one-time-link", "/users/spare/one-time-link", ADMINS),
        row("GET", "/settings", "/settings", ADMINS),
        with(row("PATCH", "/settings", "/settings", ADMINS), json!({"overcommit": 2.0})),
        row("GET", "/audit", "/audit", ADMINS),
    ]
}
