//! A small classroom in a store of its own, and the service over it without listeners.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use lyceum_controller::auth::{Origin, secret};
use lyceum_controller::orders::fresh::{self, Taken};
use lyceum_controller::{App, ControllerConfig, api, orders};
use lyceum_model::release::FileEntry;
use lyceum_model::{
    Accelerator, MachineSize, OperationId, Persistence, Platform, ReleaseManifest, SealedMemory,
};
use lyceum_store::courses::{self, Course, MemberRole};
use lyceum_store::drafts::{self, Draft};
use lyceum_store::images::{self, Image};
use lyceum_store::one_time::{self, Purpose};
use lyceum_store::operations::{self, Operation};
use lyceum_store::releases::{self, NewRelease};
use lyceum_store::sessions::{self, Session};
use lyceum_store::timetable;
use lyceum_store::users::{self, Role, User};
use lyceum_store::{agents, desktops, restore_points};
use serde_json::Value;
use sqlx::Row;
use tokio::sync::OnceCell;
use tower::ServiceExt;

/// Who asks, least rights first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Nobody.
    Anonymous,
    /// On the roster of `course-a`, has `desktop-a`.
    Student,
    /// On the roster of `course-b`.
    OtherStudent,
    /// Teaches `course-b`.
    OtherTeacher,
    /// Teaches `course-a`.
    Teacher,
    /// An admin, on no roster.
    Admin,
}

impl Who {
    pub const ALL: [Who; 6] = [
        Who::Anonymous,
        Who::Student,
        Who::OtherStudent,
        Who::OtherTeacher,
        Who::Teacher,
        Who::Admin,
    ];

    fn login(self) -> &'static str {
        match self {
            Who::Anonymous => "",
            Who::Student => "student",
            Who::OtherStudent => "other-student",
            Who::OtherTeacher => "other-teacher",
            Who::Teacher => "teacher",
            Who::Admin => "admin",
        }
    }
}

/// The password of `student`.
pub const PASSWORD: &str = "a good password";
/// The secret of the one-time link of `spare`.
pub const LINK: &str = "the-secret-of-a-link";

pub struct World {
    pub app: App,
    router: Router,
    _dir: tempfile::TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub code: String,
    pub text: String,
}

fn session_secret(who: Who) -> String {
    format!("secret-of-{}", who.login())
}

fn course(id: &str) -> Course {
    Course {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        image: "image-a".parse().unwrap(),
        release: None,
        size: None,
        persistence: Persistence::Throwaway,
        outside: false,
        spice: false,
        deleting: false,
        created: 1,
    }
}

fn manifest() -> ReleaseManifest {
    let file = FileEntry {
        bytes: 1,
        blake3: "00".into(),
    };
    ReleaseManifest {
        format: 1,
        sealed_at: 1,
        disk: file.clone(),
        virtual_bytes: 1 << 20,
        memory: Some(SealedMemory {
            size: MachineSize {
                vcpus: 1,
                memory_mib: 256,
            },
            platform: Platform {
                qemu_version: "10.0.2".into(),
                machine_type: "pc".into(),
                cpu_model: "qemu64".into(),
                accelerator: Accelerator::Simulated,
            },
            ram: file.clone(),
            device_state: file,
            guest_helper: true,
        }),
        cold_reason: None,
    }
}

impl World {
    pub async fn new() -> World {
        // In memory where there is such a place: hundreds of these are made.
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let config = ControllerConfig::local(dir.path().to_owned(), any, any);
        let app = App::open(config).await.unwrap();
        app.agent_url.set("https://127.0.0.1:1".into()).unwrap();
        static HASH: OnceCell<String> = OnceCell::const_new();
        let hash = HASH
            .get_or_init(async || app.passwords.hash(PASSWORD).await.unwrap())
            .await;
        let mut tx = app.store.begin_write().await.unwrap();
        let now = app.now();
        for (login, role) in [
            ("student", Role::Student),
            ("other-student", Role::Student),
            ("other-teacher", Role::Teacher),
            ("teacher", Role::Teacher),
            ("admin", Role::Admin),
            ("spare", Role::Student),
        ] {
            let user = User {
                id: login.parse().unwrap(),
                login: login.into(),
                name: login.to_uppercase(),
                role,
                source: "local".into(),
                password_hash: (login == "student").then(|| hash.clone()),
                disabled: false,
                deleting: false,
                created: 1,
            };
            users::insert(&mut tx, &user).await.unwrap();
        }
        for who in Who::ALL.into_iter().skip(1) {
            let session = Session {
                id: format!("session-{}", who.login()).parse().unwrap(),
                secret_hash: secret::hash(&session_secret(who)),
                user: who.login().parse().unwrap(),
                created: now,
                last_seen: now,
                client: "test".into(),
                address: "192.0.2.1".into(),
                may_set_password: true,
            };
            sessions::insert(&mut tx, &session).await.unwrap();
        }
        let spare = "spare";
        one_time::insert(
            &mut tx,
            Purpose::SignIn,
            &secret::hash(LINK),
            spare,
            now,
            now + 60_000,
        )
        .await
        .unwrap();
        for id in ["image-a", "image-b", "image-c"] {
            let image = Image {
                id: id.parse().unwrap(),
                name: id.into(),
                description: String::new(),
                created: 1,
            };
            images::insert(&mut tx, &image).await.unwrap();
        }
        for id in ["release-a", "release-b"] {
            let new = NewRelease {
                id: &id.parse().unwrap(),
                image: &"image-a".parse().unwrap(),
                manifest: &manifest(),
                bytes_on_disk: 1,
                note: "",
                sealed_by: "teacher",
                sealed_at: 1,
            };
            releases::insert(&mut tx, &new).await.unwrap();
        }
        for (id, people) in [
            (
                "course-a",
                [
                    ("student", MemberRole::Student),
                    ("teacher", MemberRole::Teacher),
                ],
            ),
            (
                "course-b",
                [
                    ("other-student", MemberRole::Student),
                    ("other-teacher", MemberRole::Teacher),
                ],
            ),
        ] {
            let course = course(id);
            courses::put(&mut tx, &course).await.unwrap();
            for (user, role) in people {
                courses::put_member(&mut tx, &course.id, &user.parse().unwrap(), role)
                    .await
                    .unwrap();
            }
        }
        lyceum_store::plans::put(&mut tx, &super::table::plan_shown())
            .await
            .unwrap();
        agents::join(
            &mut tx,
            &"kvm1".parse().unwrap(),
            "host",
            "https://127.0.0.1:1",
            1,
        )
        .await
        .unwrap();
        let operation = Operation {
            id: "operation-a".parse::<OperationId>().unwrap(),
            kind: "course.start".into(),
            target: "course/course-a".into(),
            target_name: "course-a".into(),
            course: Some("course-a".parse().unwrap()),
            requested_by: "somebody".into(),
            state: "running".into(),
            step: String::new(),
            data: "{}".into(),
            created: 1,
            ended: None,
        };
        operations::insert(&mut tx, &operation, &[]).await.unwrap();
        let draft = Draft {
            id: "draft-a".parse().unwrap(),
            image: "image-b".parse().unwrap(),
            state: drafts::State::Empty,
            detail: String::new(),
            percent: None,
            from_release: None,
            size: MachineSize {
                vcpus: 1,
                memory_mib: 256,
            },
            iso: false,
            owner: "teacher".into(),
            work: None,
            operation: None,
            created: 1,
        };
        drafts::insert(&mut tx, &draft).await.unwrap();
        tx.commit().await.unwrap();
        let facts = orders::course_facts(&app.store, &"course-a".parse().unwrap())
            .await
            .unwrap()
            .unwrap();
        let mut tx = app.store.begin_write().await.unwrap();
        let mut taken = Taken::of(&[]);
        for (id, login) in [("desktop-a", "student"), ("desktop-t", "teacher")] {
            let user = login.parse().unwrap();
            let mut row = fresh::desktop(&facts, &user, login, &mut taken, 1).unwrap();
            row.id = id.parse().unwrap();
            desktops::put(&mut tx, &row).await.unwrap();
            if login == "student" {
                let origin = restore_points::Origin::Asked;
                let mut point =
                    orders::restore_points::new_point(&row, origin, "batch-a", None, "", 1)
                        .unwrap();
                point.id = "point-a".parse().unwrap();
                point.state = restore_points::State::Ready;
                restore_points::put(&mut tx, &point).await.unwrap();
            }
        }
        let lesson = serde_json::json!({
            "id": "", "course": "", "room": null, "title": "", "begin": "08:10", "minutes": 50, "zone": null,
            "when": {"kind": "weekly", "weekday": "mon", "every_weeks": 1, "from": null, "until": null},
            "exceptions": {},
        });
        let lesson = timetable::LessonRow {
            id: "lesson-a".parse().unwrap(),
            course: "course-a".parse().unwrap(),
            uid: None,
            lesson: serde_json::from_value(lesson).unwrap(),
            created: 1,
        };
        timetable::put_lesson(&mut tx, &lesson).await.unwrap();
        let first: jiff::civil::Date = "2026-12-24".parse().unwrap();
        let days = timetable::SchoolDays {
            id: "days-a".parse().unwrap(),
            kind: timetable::DaysKind::Holiday,
            span: lyceum_timetable::Span {
                name: "h".into(),
                first,
                last: first,
            },
        };
        timetable::put_school_days(&mut tx, &days).await.unwrap();
        tx.commit().await.unwrap();
        World {
            router: api::router(app.clone()),
            app,
            _dir: dir,
        }
    }

    /// A request as the page of `who` makes it.
    pub fn request(
        &self,
        who: Who,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Request<Body> {
        let secret = session_secret(who);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("host", "127.0.0.1:8470")
            .extension(Origin::Network("192.0.2.1".parse().unwrap()));
        if who != Who::Anonymous {
            request = request
                .header("cookie", format!("lyceum_session={secret}"))
                .header("x-lyceum-csrf", secret::csrf(&secret));
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                body.to_string()
            }
            None => String::new(),
        };
        request
            .header("content-length", body.len())
            .body(Body::from(body))
            .unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let stream = response
            .headers()
            .get("content-type")
            .is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        if stream {
            return Answer {
                status,
                code: String::new(),
                text: String::new(),
            };
        }
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24)
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let code = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|v| v["code"].as_str().map(str::to_owned))
            .unwrap_or_default();
        Answer { status, code, text }
    }

    pub async fn ask(&self, who: Who, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.send(self.request(who, method, path, body)).await
    }

    /// Everything the store holds, as text. That a session was used is noted each minute, whoever asks for what.
    pub async fn everything(&self) -> String {
        let pool = self.app.store.pool();
        let tables =
            sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
                .fetch_all(pool)
                .await
                .unwrap();
        let mut out = String::new();
        for table in tables {
            let table: String = table.get("name");
            let columns = sqlx::query("SELECT name FROM pragma_table_info($1)")
                .bind(&table)
                .fetch_all(pool)
                .await
                .unwrap();
            let columns: Vec<String> = columns
                .iter()
                .map(|c| c.get::<String, _>("name"))
                .filter(|c| c != "last_seen")
                .map(|c| format!("quote({c})"))
                .collect();
            let sql = format!(
                "SELECT COALESCE(group_concat(line, char(10)), '') AS all_rows FROM
                   (SELECT {} AS line FROM {table} ORDER BY 1)",
                columns.join(" || ',' || ")
            );
            let rows: String = sqlx::query(sqlx::AssertSqlSafe(sql))
                .fetch_one(pool)
                .await
                .unwrap()
                .get("all_rows");
            out += &format!("{table}:\n{rows}\n");
        }
        out
    }
}
