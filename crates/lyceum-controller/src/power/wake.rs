//! The ways to bring a host up. Each only asks for it: that it came up is known when its agent is heard.

use super::password_file;
use crate::app::App;
use lyceum_api::allocation::PowerMethod;
use lyceum_model::HostId;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UdpSocket;

/// How long a board's controller or a command may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The usual port of magic packets.
const WAKE_PORT: u16 = 9;
/// The usual port of IPMI over LAN.
const IPMI_PORT: u16 = 623;

/// Asks for the host to come up. The error says what failed and what to do; no password is in it.
pub async fn wake(app: &App, host: &HostId, method: &PowerMethod) -> Result<(), String> {
    match method {
        PowerMethod::WakeOnLan { mac, address } => wake_on_lan(mac, address.as_deref()).await,
        PowerMethod::Ipmi { address, user } => {
            let password = password_file(app, host);
            ipmi(address, user, &password, &["chassis", "power", "on"])
                .await
                .map(drop)
        }
        PowerMethod::Redfish {
            url,
            user,
            system,
            any_certificate,
        } => {
            let password = tokio::fs::read_to_string(password_file(app, host))
                .await
                .map_err(|e| format!("the password of its board's controller can't be read: {e}; set it again on the page"))?;
            redfish(url, user, &password, system.as_deref(), *any_certificate).await
        }
        PowerMethod::Command { name } => {
            let Some(command) = app.config.power_commands.get(name) else {
                return Err(format!(
                    "the controller's configuration has no power command {name:?}: add it there"
                ));
            };
            let words: Vec<String> = command
                .iter()
                .map(|w| w.replace("{host}", host.as_str()))
                .collect();
            let Some((program, args)) = words.split_first() else {
                return Err(format!("the power command {name:?} is empty"));
            };
            run(program, args).await.map(drop)
        }
    }
}

/// A network card's address out of text.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong =
        || format!("{text:?} is no address of a network card: write it as 52:54:00:12:34:56");
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let mut mac = [0; 6];
    if parts.len() != 6 {
        return Err(wrong());
    }
    for (byte, part) in mac.iter_mut().zip(parts) {
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    Ok(mac)
}

/// Where magic packets go.
pub fn destination(address: Option<&str>) -> Result<SocketAddr, String> {
    match address {
        None => Ok(SocketAddr::from((Ipv4Addr::BROADCAST, WAKE_PORT))),
        Some(text) => text.parse().map_err(|_| {
            format!("{text:?} is no ADDRESS:PORT: write for example 10.0.0.255:9, the network's broadcast address")
        }),
    }
}

/// Six times 0xff, then the card's address sixteen times.
pub fn magic_packet(mac: [u8; 6]) -> [u8; 102] {
    let mut packet = [0xff; 102];
    for at in packet[6..].chunks_exact_mut(6) {
        at.copy_from_slice(&mac);
    }
    packet
}

async fn wake_on_lan(card: &str, address: Option<&str>) -> Result<(), String> {
    let (mac, to) = (mac(card)?, destination(address)?);
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let send = async {
        let socket = UdpSocket::bind(any).await?;
        socket.set_broadcast(true)?;
        socket.send_to(&magic_packet(mac), to).await
    };
    send.await.map(drop).map_err(|e| {
        format!("the magic packet could not be sent to {to}: {e}; give the broadcast address of the host's network")
    })
}

/// Address and port of a board's controller out of text.
pub fn ipmi_address(text: &str) -> Result<(String, u16), String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (
            name,
            port.parse()
                .map_err(|_| format!("{port:?} is no port: give 1 to 65535"))?,
        ),
        _ => (text, IPMI_PORT),
    };
    let good = (1..=253).contains(&name.len())
        && !name.starts_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-.:".contains(c));
    match good {
        true => Ok((name.to_owned(), port)),
        false => Err(format!("{name:?} is no address: give a name or an address")),
    }
}

/// Runs `ipmitool`; the password goes from file to file and is never an argument.
pub async fn ipmi(
    address: &str,
    user: &str,
    password: &Path,
    command: &[&str],
) -> Result<String, String> {
    let (name, port) = ipmi_address(address)?;
    if !password.exists() {
        return Err("there is no password of its board's controller: set it on the page".into());
    }
    let port = port.to_string();
    let password = password.display().to_string();
    let mut args = vec![
        "-I", "lanplus", "-H", &name, "-p", &port, "-U", user, "-f", &password,
    ];
    args.extend(command);
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    run("ipmitool", &args).await
}

/// Its address, checked.
pub fn redfish_url(text: &str) -> Result<url::Url, String> {
    let url: url::Url = text
        .trim_end_matches('/')
        .parse()
        .map_err(|e| format!("{text:?} is no address: {e}; write for example https://10.0.0.17"))?;
    if !matches!(url.scheme(), "https" | "http")
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(
            "the address of a board's controller begins with https:// and holds no password".into(),
        );
    }
    Ok(url)
}

async fn redfish(
    base: &str,
    user: &str,
    password: &str,
    system: Option<&str>,
    any_certificate: bool,
) -> Result<(), String> {
    let base = redfish_url(base)?;
    let told = |e: reqwest::Error| {
        // Its address is told, what it was asked with is not.
        format!("{base} did not answer: {}", e.without_url())
    };
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(any_certificate)
        .build()
        .map_err(told)?;
    let at = |path: &str| {
        base.join(path)
            .map_err(|e| format!("{path:?} is no path on {base}: {e}"))
    };
    let systems = "/redfish/v1/Systems";
    let path = match system {
        Some(system) => format!("{systems}/{system}"),
        None => {
            let answer = client
                .get(at(systems)?)
                .basic_auth(user, Some(password))
                .send()
                .await
                .and_then(reqwest::Response::error_for_status)
                .map_err(told)?;
            let list: serde_json::Value = answer.json().await.map_err(told)?;
            let members = list["Members"].as_array().cloned().unwrap_or_default();
            let [only] = members.as_slice() else {
                return Err(format!(
                    "{base} has {} systems: name the one that is meant",
                    members.len()
                ));
            };
            only["@odata.id"]
                .as_str()
                .filter(|p| p.starts_with("/redfish/"))
                .ok_or_else(|| format!("{base} does not say where its system is"))?
                .trim_end_matches('/')
                .to_owned()
        }
    };
    let answer = client
        .post(at(&format!("{path}/Actions/ComputerSystem.Reset"))?)
        .basic_auth(user, Some(password))
        .json(&serde_json::json!({"ResetType": "On"}))
        .send()
        .await
        .map_err(told)?;
    match answer.status() {
        s if s.is_success() => Ok(()),
        // What is on already is no failure.
        s if s == reqwest::StatusCode::CONFLICT => Ok(()),
        s if s == reqwest::StatusCode::UNAUTHORIZED || s == reqwest::StatusCode::FORBIDDEN => {
            Err(format!(
                "{base} refuses user {user:?} or the password ({s}): set them again on the page"
            ))
        }
        s => Err(format!("{base} answered {s} to the order to switch on")),
    }
}

/// Runs a program to its end; its last words are the error.
async fn run(program: &str, args: &[String]) -> Result<String, String> {
    let output = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, output).await {
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => {
            let words: String = String::from_utf8_lossy(&output.stderr)
                .chars()
                .filter(|c| !c.is_control() || *c == '\n')
                .take(300)
                .collect();
            Err(format!(
                "{program} ended with {}: {}",
                output.status,
                words.trim().replace('\n', "; ")
            ))
        }
        Ok(Err(e)) => Err(format!(
            "{program} can't be run: {e}; is it installed on the controller?"
        )),
        Err(_) => Err(format!("{program} did not end in {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_magic_packet_arrives_and_is_one() {
        let seen = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = seen.local_addr().unwrap().to_string();
        wake_on_lan("52:54:00:AB:cd:ef", Some(&to)).await.unwrap();
        let mut bytes = [0; 200];
        let n = seen.recv(&mut bytes).await.unwrap();
        assert_eq!(n, 102);
        assert_eq!(bytes[..6], [0xff; 6]);
        for at in bytes[6..102].chunks(6) {
            assert_eq!(at, [0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:5",
            "52:54:00:12:34:5g",
            "52:54:00:12:34:56:78",
            "+1:54:00:12:34:56",
        ] {
            assert!(mac(bad).is_err(), "{bad}");
        }
        for bad in ["-x", "", "a b", "host:99999", "$(x)", "a;b"] {
            assert!(ipmi_address(bad).is_err(), "{bad}");
        }
        assert_eq!(ipmi_address("bmc1").unwrap(), ("bmc1".into(), 623));
        assert_eq!(
            ipmi_address("10.0.0.1:700").unwrap(),
            ("10.0.0.1".into(), 700)
        );
        assert_eq!(ipmi_address("fe80::1").unwrap(), ("fe80::1".into(), 623));
        for bad in ["x", "ftp://a", "https://u:p@a", "file:///etc/passwd"] {
            assert!(redfish_url(bad).is_err(), "{bad}");
        }
        assert!(destination(Some("10.0.0.255")).is_err());
    }

    /// A board's controller: one system that is switched by whoever knows the password.
    async fn board(password: &'static str) -> (String, tokio::sync::watch::Receiver<bool>) {
        use axum::http::{HeaderMap, StatusCode};
        use axum::routing::{get, post};
        let (on, seen) = tokio::sync::watch::channel(false);
        let may = move |headers: &HeaderMap| {
            use base64::Engine;
            let wanted =
                base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}"));
            headers
                .get("authorization")
                .is_some_and(|v| v.as_bytes() == format!("Basic {wanted}").as_bytes())
        };
        let router = axum::Router::new()
            .route(
                "/redfish/v1/Systems",
                get(move |headers: HeaderMap| async move {
                    if may(&headers) {
                        Ok(axum::Json(
                            serde_json::json!({"Members": [{"@odata.id": "/redfish/v1/Systems/437XR"}]}),
                        ))
                    } else {
                        Err(StatusCode::UNAUTHORIZED)
                    }
                }),
            )
            .route(
                "/redfish/v1/Systems/{id}/Actions/ComputerSystem.Reset",
                post(
                    move |headers: HeaderMap, axum::Json(body): axum::Json<serde_json::Value>| async move {
                        if !may(&headers) {
                            return StatusCode::UNAUTHORIZED;
                        }
                        if body["ResetType"] != "On" {
                            return StatusCode::BAD_REQUEST;
                        }
                        on.send_replace(true);
                        StatusCode::NO_CONTENT
                    },
                ),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, seen)
    }

    #[tokio::test]
    async fn redfish_switches_the_only_system_on_and_says_no_password() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, seen) = board("s3cret").await;
        let why = redfish(&url, "admin", "wrong-one", None, false)
            .await
            .unwrap_err();
        assert!(why.contains("401") && !why.contains("wrong-one"), "{why}");
        let why = redfish(&url, "admin", "wrong-one", Some("437XR"), false)
            .await
            .unwrap_err();
        assert!(
            why.contains("refuses") && !why.contains("wrong-one"),
            "{why}"
        );
        assert!(!*seen.borrow());
        redfish(&url, "admin", "s3cret", None, false).await.unwrap();
        assert!(*seen.borrow());
        let why = redfish("http://127.0.0.1:1", "admin", "s3cret", None, false)
            .await
            .unwrap_err();
        assert!(
            why.contains("did not answer") && !why.contains("s3cret"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let why = run("sh", &["-c".into(), "echo out of order >&2; exit 3".into()])
            .await
            .unwrap_err();
        assert!(why.contains("out of order"), "{why}");
        assert!(
            run("no-such-program-here", &[])
                .await
                .unwrap_err()
                .contains("installed")
        );
    }
}
