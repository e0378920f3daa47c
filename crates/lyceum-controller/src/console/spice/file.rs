//! The file that `remote-viewer` is started with.

use crate::error::ApiFailure;

/// What is in it.
#[derive(Debug)]
pub struct ViewerFile<'a> {
    /// Host of the controller as the client reaches it.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The one-time password.
    pub password: &'a str,
    /// Title of the window.
    pub title: &'a str,
    /// The authority its certificate is of, as PEM, and the certificate's subject; `None`: one that all know.
    pub authority: Option<(&'a str, &'a str)>,
}

// A value ends with its line.
fn value(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.replace('\\', " ").chars().map(printable).collect()
}

impl ViewerFile<'_> {
    /// Its text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "[virt-viewer]\ntype=spice\nhost={}\ntls-port={}\npassword={}\ndelete-this-file=1\ntitle={}\n\
             secure-channels=main;display;inputs;cursor;playback;record\n",
            value(self.host),
            self.port,
            value(self.password),
            value(self.title),
        );
        if let Some((pem, subject)) = self.authority {
            text.push_str(&format!(
                "ca={}\nhost-subject={}\n",
                pem.trim_end().replace('\r', "").replace('\n', "\\n"),
                value(subject)
            ));
        }
        text
    }
}

/// The host in a `Host` header or the like, without the port; refused when it can't be one.
pub fn host_of(authority: &str) -> Result<String, ApiFailure> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    if host.is_empty() || host.len() > 253 || !host.chars().all(fits) {
        return Err(ApiFailure::malformed(
            "the request does not say by what name it reached the controller",
        ));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_gets_out_of_its_line() {
        let file = ViewerFile {
            host: "school.example",
            port: 8474,
            password: "s3cret",
            title: "Ann\npassword=x\r\\n",
            authority: Some(("-----BEGIN\nabc\n-----END\n", "CN=controller")),
        };
        let text = file.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "[virt-viewer]");
        assert!(lines.contains(&"title=Ann password=x  n"), "{text}");
        assert!(lines.contains(&"ca=-----BEGIN\\nabc\\n-----END"));
        assert_eq!(
            lines.iter().filter(|l| l.starts_with("password=")).count(),
            1
        );
        assert!(lines.contains(&"delete-this-file=1"));
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for (authority, host) in [
            ("a.b:8443", "a.b"),
            ("10.0.0.1", "10.0.0.1"),
            ("[2001:db8::1]:8443", "2001:db8::1"),
        ] {
            assert_eq!(host_of(authority).expect("host"), host);
        }
        for bad in ["", ":80", "a b", "a\nhost=evil", "[", "ä"] {
            assert!(host_of(bad).is_err(), "{bad:?}");
        }
    }
}
