//! The desktop session, as far as the helper has to do with it: is it usable, and what is on its clipboard?

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::{files, sys};

/// The clipboard of a guest without a desktop.
const CLIPBOARD_FILE: &str = "/run/lyceum/clipboard";

/// Whose session it is and how to see that it is up. Empty for a guest without a desktop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desktop {
    /// The guest is ready when this file exists.
    pub ready_file: Option<PathBuf>,
    /// The account that is signed in.
    pub user: Option<String>,
    /// Its X display.
    pub display: String,
    /// The file with the cookie for the display, where it is not the user's own `~/.Xauthority`.
    pub xauthority: Option<PathBuf>,
}

impl Desktop {
    /// Reads the program's options.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut desktop = Self {
            display: ":0".into(),
            ..Self::default()
        };
        while let Some(option) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| format!("{option} needs a value; see lyceum-guest --help"))
            };
            match option.as_str() {
                "--ready-file" => desktop.ready_file = Some(value()?.into()),
                "--session-user" => desktop.user = Some(value()?),
                "--display" => desktop.display = value()?,
                "--xauthority" => desktop.xauthority = Some(value()?.into()),
                _ => {
                    return Err(format!(
                        "unknown option {option:?}; see lyceum-guest --help"
                    ));
                }
            }
        }
        Ok(desktop)
    }

    /// What is still missing until the guest is usable.
    pub fn missing(&self) -> Option<String> {
        let file = self.ready_file.as_ref()?;
        (!file.exists()).then(|| {
            format!(
                "the desktop session is not up yet ({} is missing)",
                file.display()
            )
        })
    }

    /// Puts text on the clipboard.
    pub fn set_clipboard(&self, text: &str) -> Result<Value, String> {
        match &self.user {
            None => files::replace(CLIPBOARD_FILE, text.as_bytes(), 0o666)
                .map_err(|error| format!("can't write {CLIPBOARD_FILE}: {error}"))?,
            // xclip stays in the background as the selection's owner, until somebody else copies something. Both
            // selections: Shift-Insert pastes the one in terminals and the other in forms.
            Some(user) => {
                self.xclip(user, "-in", "clipboard", text)?;
                self.xclip(user, "-in", "primary", text)?;
            }
        }
        Ok(Value::Null)
    }

    /// Reads the clipboard's text.
    pub fn clipboard(&self) -> Result<Value, String> {
        let text = match &self.user {
            None => match std::fs::read(CLIPBOARD_FILE) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                read => read.map_err(|error| format!("can't read {CLIPBOARD_FILE}: {error}"))?,
            },
            Some(user) => self.xclip(user, "-out", "clipboard", "")?,
        };
        Ok(json!({ "text": String::from_utf8_lossy(&text) }))
    }

    fn xclip(
        &self,
        user: &str,
        direction: &str,
        selection: &str,
        input: &str,
    ) -> Result<Vec<u8>, String> {
        let run = || -> io::Result<Output> {
            let (uid, gid, home) = sys::account(user)?.ok_or(io::ErrorKind::NotFound)?;
            let mut command = Command::new("xclip");
            command
                .args([direction, "-selection", selection])
                .args(["-target", "UTF8_STRING"]);
            command
                .uid(uid)
                .gid(gid)
                .env("DISPLAY", &self.display)
                .env("HOME", home)
                .current_dir("/");
            if let Some(file) = &self.xauthority {
                command.env("XAUTHORITY", file);
            }
            command.stdin(Stdio::piped()).stderr(Stdio::null());
            // The owner in the background would keep a pipe open and this call with it.
            command.stdout(if direction == "-in" {
                Stdio::null()
            } else {
                Stdio::piped()
            });
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        };
        match run() {
            Ok(output) if output.status.success() => Ok(output.stdout),
            // An empty clipboard is an error for xclip.
            Ok(_) if direction == "-out" => Ok(Vec::new()),
            Ok(output) => Err(format!(
                "xclip failed ({}); is {user}'s session on {} up?",
                output.status, self.display
            )),
            Err(error) => Err(format!(
                "can't run xclip as {user}: {error}; is the package xclip installed?"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Desktop, String> {
        Desktop::from_args(args.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn options() {
        assert_eq!(parse(&[]).expect("fine").missing(), None);
        let desktop = parse(&[
            "--ready-file",
            "/nowhere/ready",
            "--session-user",
            "student",
        ])
        .expect("fine");
        assert!(
            desktop
                .missing()
                .expect("not ready")
                .contains("/nowhere/ready")
        );
        assert!(parse(&["--ready-file"]).is_err());
        assert!(
            parse(&["--raedy"])
                .expect_err("unknown")
                .contains("--raedy")
        );
    }
}
