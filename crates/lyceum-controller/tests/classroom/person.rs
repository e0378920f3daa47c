//! Somebody who signed in over the network.

use crate::viewer::{Viewer, shake};
use crate::world::Classroom;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const PASSWORD: &str = "a password of their own";

/// A session.
#[derive(Clone)]
pub struct Person {
    cookie: String,
    csrf: String,
    login: String,
    http: reqwest::Client,
}

impl Person {
    /// By a link that an admin made.
    pub fn sign_in(room: &Classroom, user: &str) -> Person {
        let link = room
            .send("POST", &format!("users/{user}/one-time-link"), json!({}))
            .expect("a link");
        let path = link["path"].as_str().unwrap();
        let secret = path.strip_prefix("/#/welcome/").unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = json!({"secret": secret, "new_password": PASSWORD});
        Self::signed(room, http, "session/one-time", body)
    }

    /// In another session.
    pub fn again(&self, room: &Classroom) -> Person {
        let body = json!({"login": self.login, "password": PASSWORD});
        Self::signed(room, self.http.clone(), "session", body)
    }

    fn signed(room: &Classroom, http: reqwest::Client, path: &str, body: Value) -> Person {
        room.run(async {
            let url = format!("http://{}/api/v1/{path}", room.page());
            let answer = http.post(url).json(&body).send().await.unwrap();
            let cookie = answer.headers()["set-cookie"].to_str().unwrap();
            let cookie = cookie.split(';').next().unwrap().to_owned();
            let me: Value = answer.json().await.unwrap();
            let text = |v: &Value| v.as_str().expect("signed in").to_owned();
            Person {
                cookie,
                csrf: text(&me["csrf"]),
                login: text(&me["user"]["login"]),
                http,
            }
        })
    }

    /// A request; the error is the status with the answer.
    pub fn send(&self, room: &Classroom, method: &str, path: &str) -> Result<Value, (u16, Value)> {
        let url = format!("http://{}/api/v1/{path}", room.page());
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self
            .http
            .request(method, url)
            .header("cookie", &self.cookie)
            .header("x-lyceum-csrf", &self.csrf)
            .json(&json!({}));
        room.run(async {
            let answer = request.send().await.unwrap();
            let status = answer.status();
            let body = answer.json().await.unwrap_or(Value::Null);
            match status.is_success() {
                true => Ok(body),
                false => Err((status.as_u16(), body)),
            }
        })
    }

    pub fn ticket(&self, room: &Classroom, desktop: &str) -> String {
        let path = format!("desktops/{desktop}/console-ticket");
        let answer = self.send(room, "POST", &path).expect("a ticket");
        answer["ticket"].as_str().unwrap().to_owned()
    }

    /// A WebSocket from a page of this site. `room_for`: bytes that the system may hold for this end.
    pub async fn connect(
        &self,
        page: SocketAddr,
        ticket: &str,
        site: &str,
        room_for: Option<u32>,
    ) -> Result<Viewer, Error> {
        let socket = match page {
            SocketAddr::V4(_) => TcpSocket::new_v4().unwrap(),
            SocketAddr::V6(_) => TcpSocket::new_v6().unwrap(),
        };
        if let Some(bytes) = room_for {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = socket.connect(page).await.unwrap();
        let mut request = format!("ws://{page}/api/v1/console/{ticket}")
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", "lyceum".parse().unwrap());
        headers.insert("Cookie", self.cookie.parse().unwrap());
        headers.insert("Origin", site.parse().unwrap());
        shake(request, Box::new(stream)).await
    }

    /// A console with its first picture asked for.
    pub fn open(&self, room: &Classroom, desktop: &str) -> Viewer {
        let ticket = self.ticket(room, desktop);
        let page = room.page();
        room.run(async {
            let site = format!("http://{page}");
            let opened = self.connect(page, &ticket, &site, None).await;
            let mut viewer = opened.expect("a console");
            viewer.begin().await;
            viewer
        })
    }

    /// The status that a WebSocket is refused with; 101: it is not.
    pub fn refused(&self, room: &Classroom, ticket: &str, site: &str) -> u16 {
        match room.run(self.connect(room.page(), ticket, site, None)) {
            Ok(_) => 101,
            Err(Error::Http(answer)) => answer.status().as_u16(),
            Err(e) => panic!("{e}"),
        }
    }
}
