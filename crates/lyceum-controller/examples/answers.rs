//! How long an answer takes that changes nothing, 200 asked for at once.
//!
//! A controller in this process, with a course of 60 students and their desktops, on a SQLite
//! store in a temporary directory; 200 connections that are open already ask at the same moment,
//! each with its own person's session, again and again. Client and server share the machine.
//!
//! `cargo run --release -p lyceum-controller --example answers`

use lyceum_controller::auth::secret;
use lyceum_controller::orders::fresh::{self, Taken};
use lyceum_controller::{Controller, ControllerConfig, orders};
use lyceum_model::{Persistence, UserId};
use lyceum_store::courses::{self, Course, MemberRole};
use lyceum_store::desktops;
use lyceum_store::images::{self, Image};
use lyceum_store::sessions::{self, Session};
use lyceum_store::users::{self, Role, User};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 200;
const ROUNDS: usize = 50;
const STUDENTS: usize = 60;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let any = "127.0.0.1:0".parse()?;
    let controller =
        Controller::bind(ControllerConfig::local(dir.path().to_owned(), any, any)).await?;
    let address = controller.address();
    let people = fill(controller.app()).await?;
    let stop = CancellationToken::new();
    let served = tokio::spawn(controller.serve(stop.clone().cancelled_owned()));
    println!(
        "{CONNECTIONS} requests at once, {ROUNDS} times; {STUDENTS} students with desktops; milliseconds"
    );
    println!("{:<36}{:>9}{:>9}{:>9}", "", "median", "p99", "max");
    let staff = std::slice::from_ref(&people[0]);
    for (title, path, who) in [
        (
            "GET health (nobody signed in)",
            "health",
            &[String::new()][..],
        ),
        ("GET session (200 people)", "session", &people),
        ("GET desktops (own, 200 people)", "desktops", &people),
        ("GET courses (own, 200 people)", "courses", &people),
        ("GET desktops?all=true (admin)", "desktops?all=true", staff),
    ] {
        let mut times = measure(address, path, who).await?;
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        println!(
            "{title:<36}{:>9.1}{:>9.1}{:>9.1}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    stop.cancel();
    served.await??;
    Ok(())
}

/// An admin first, then students; answers their session secrets.
async fn fill(app: &lyceum_controller::App) -> Result<Vec<String>> {
    let now = app.now();
    let mut secrets = Vec::new();
    let course = Course {
        id: "course".parse()?,
        name: "Class".into(),
        image: "image".parse()?,
        release: None,
        size: None,
        persistence: Persistence::Throwaway,
        outside: false,
        spice: false,
        deleting: false,
        created: now,
    };
    let mut tx = app.store.begin_write().await?;
    let image = Image {
        id: "image".parse()?,
        name: "Image".into(),
        description: String::new(),
        created: now,
    };
    images::insert(&mut tx, &image).await?;
    courses::put(&mut tx, &course).await?;
    for n in 0..CONNECTIONS {
        let id: UserId = format!("u{n}").parse()?;
        let user = User {
            id: id.clone(),
            login: format!("u{n}"),
            name: format!("Person {n}"),
            role: if n == 0 { Role::Admin } else { Role::Student },
            source: "local".into(),
            password_hash: None,
            disabled: false,
            deleting: false,
            created: now,
        };
        users::insert(&mut tx, &user).await?;
        let secret = format!("secret {n}");
        let session = Session {
            id: format!("s{n}").parse()?,
            secret_hash: secret::hash(&secret),
            user: id.clone(),
            created: now,
            last_seen: now,
            client: "bench".into(),
            address: "127.0.0.1".into(),
            may_set_password: false,
        };
        sessions::insert(&mut tx, &session).await?;
        courses::put_member(&mut tx, &course.id, &id, MemberRole::Student).await?;
        secrets.push(secret);
    }
    tx.commit().await?;
    let facts = orders::course_facts(&app.store, &course.id)
        .await?
        .ok_or("no course")?;
    let mut taken = Taken::of(&[]);
    let mut tx = app.store.begin_write().await?;
    for n in 0..STUDENTS {
        let user = format!("u{n}").parse()?;
        let row = fresh::desktop(&facts, &user, &format!("u{n}"), &mut taken, now)?;
        desktops::put(&mut tx, &row).await?;
    }
    tx.commit().await?;
    Ok(secrets)
}

async fn measure(
    address: std::net::SocketAddr,
    path: &str,
    who: &[String],
) -> Result<Vec<Duration>> {
    let barrier = Arc::new(Barrier::new(CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..CONNECTIONS {
        let secret = &who[n % who.len()];
        let cookie = if secret.is_empty() {
            String::new()
        } else {
            format!("cookie: lyceum_session={secret}\r\n")
        };
        let request = format!("GET /api/v1/{path} HTTP/1.1\r\nhost: {address}\r\n{cookie}\r\n");
        let barrier = barrier.clone();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut times = Vec::with_capacity(ROUNDS);
            // The first round warms up connection and session; it is not counted.
            for round in 0..=ROUNDS {
                barrier.wait().await;
                let begin = Instant::now();
                stream.write_all(request.as_bytes()).await?;
                read_answer(&mut stream).await?;
                if round > 0 {
                    times.push(begin.elapsed());
                }
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

async fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err("the connection was closed".into());
        }
        let Some(head) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(text.into());
        }
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .ok_or("no length")?
            .parse()?;
        if buffer.len() >= head + 4 + length {
            return Ok(());
        }
    }
}
