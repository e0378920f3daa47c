//! A controller that runs, and somebody who asks it.

use lyceum_controller::{Controller, ControllerConfig, StartError};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// A controller that runs.
pub struct Site {
    pub url: String,
    pub state: PathBuf,
    pub app: lyceum_controller::App,
    pub http: reqwest::Client,
    pub stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), StartError>>,
}

/// Somebody's cookie and token.
#[derive(Clone)]
pub struct Signed {
    pub cookie: String,
    pub csrf: String,
}

pub fn config(state: &Path) -> ControllerConfig {
    let any = "127.0.0.1:0".parse().unwrap();
    ControllerConfig::local(state.to_owned(), any, any)
}

impl Site {
    pub async fn start(state: &Path) -> Site {
        Self::with(config(state)).await
    }

    pub async fn with(config: ControllerConfig) -> Site {
        // The first one wins; it is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let state = config.state_dir.clone();
        let controller = Controller::bind(config).await.unwrap();
        let (url, app) = (controller.url(), controller.app().clone());
        let ca = reqwest::Certificate::from_pem(app.ca.pem().as_bytes()).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(controller.serve(stop.clone().cancelled_owned()));
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca])
            .build()
            .unwrap();
        let site = Site {
            url,
            state,
            app,
            http,
            stop,
            task,
        };
        // Listening before it is served: the first answer says that the way in is written.
        assert_eq!(site.get("health", None).await.status(), StatusCode::OK);
        site
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub fn request(
        &self,
        method: Method,
        path: &str,
        who: Option<&Signed>,
    ) -> reqwest::RequestBuilder {
        let mut request = self
            .http
            .request(method.clone(), format!("{}/api/v1/{path}", self.url));
        if let Some(who) = who {
            request = request.header("cookie", format!("lyceum_session={}", who.cookie));
            if method != Method::GET {
                request = request.header("x-lyceum-csrf", &who.csrf);
            }
        }
        request
    }

    pub async fn get(&self, path: &str, who: Option<&Signed>) -> Response {
        self.request(Method::GET, path, who).send().await.unwrap()
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        who: Option<&Signed>,
        body: Value,
    ) -> Response {
        self.request(method, path, who)
            .json(&body)
            .send()
            .await
            .unwrap()
    }

    pub async fn post(&self, path: &str, who: Option<&Signed>, body: Value) -> Response {
        self.call(Method::POST, path, who, body).await
    }

    pub async fn delete(&self, path: &str, who: &Signed) -> StatusCode {
        self.request(Method::DELETE, path, Some(who))
            .send()
            .await
            .unwrap()
            .status()
    }

    /// The secret of the first admin's link.
    pub fn first_secret(&self) -> String {
        let text = std::fs::read_to_string(self.state.join("first-sign-in")).unwrap();
        text.trim().strip_prefix("/#/welcome/").unwrap().to_owned()
    }

    pub async fn admin(&self) -> Signed {
        self.open_link(&self.first_secret(), Some("the admin's password"))
            .await
    }

    pub async fn open_link(&self, secret: &str, password: Option<&str>) -> Signed {
        let body = json!({"secret": secret, "new_password": password});
        signed(self.post("session/one-time", None, body).await).await
    }

    pub async fn sign_in(&self, login: &str, password: &str) -> Response {
        self.post(
            "session",
            None,
            json!({"login": login, "password": password}),
        )
        .await
    }

    pub async fn make_user(&self, admin: &Signed, login: &str, role: &str) -> Value {
        let body = json!({"login": login, "name": login, "role": role, "password": format!("password of {login}")});
        answer(
            self.post("users", Some(admin), body).await,
            StatusCode::CREATED,
        )
        .await
    }

    pub async fn person(&self, admin: &Signed, login: &str, role: &str) -> Signed {
        self.make_user(admin, login, role).await;
        signed(self.sign_in(login, &format!("password of {login}")).await).await
    }

    pub async fn image(&self) {
        let mut tx = self.app.store.begin_write().await.unwrap();
        let image = lyceum_store::images::Image {
            id: "image".parse().unwrap(),
            name: "Image".into(),
            description: String::new(),
            created: 1,
        };
        lyceum_store::images::insert(&mut tx, &image).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn course(&self, who: &Signed, name: &str) -> String {
        let body = json!({"name": name, "image": "image", "release": null, "size": null, "persistence": "persistent"});
        let course = answer(
            self.post("courses", Some(who), body).await,
            StatusCode::CREATED,
        )
        .await;
        course["id"].as_str().unwrap().to_owned()
    }
}

pub async fn answer(response: Response, status: StatusCode) -> Value {
    let (got, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

pub async fn refused(response: Response, status: StatusCode, code: &str) -> String {
    let body = answer(response, status).await;
    assert_eq!(body["code"], code, "{body}");
    body["message"].as_str().unwrap().to_owned()
}

pub fn cookie_of(response: &Response) -> String {
    let value = response.headers()["set-cookie"].to_str().unwrap();
    let (name, rest) = value.split_once('=').unwrap();
    assert_eq!(name, "lyceum_session");
    rest.split(';').next().unwrap().to_owned()
}

pub async fn signed(response: Response) -> Signed {
    let cookie = if response.status() == StatusCode::OK {
        cookie_of(&response)
    } else {
        String::new()
    };
    let me = answer(response, StatusCode::OK).await;
    Signed {
        cookie,
        csrf: me["csrf"].as_str().unwrap().to_owned(),
    }
}
