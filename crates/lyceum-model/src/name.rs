//! Names that people choose, and names made from them.

use serde::{Deserialize, Serialize};

/// Why a name was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but white space.
    #[error("{what} is empty: give it a name")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// Longer than allowed.
    #[error("{what} is longer than {max} characters: choose a shorter one")]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// The most characters allowed.
        max: usize,
    },
    /// A control character, or a character that is not allowed in this name.
    #[error("{what} holds the character {character:?}, which is not allowed there: leave it out")]
    Character {
        /// What was to be named.
        what: &'static str,
        /// The first character that is not allowed.
        character: char,
    },
}

/// A title that people read, of a course or an image: any text in any script
/// without control characters, trimmed, 1 to `max` characters.
pub fn title(what: &'static str, text: &str, max: usize) -> Result<String, NameError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.chars().count() > max {
        return Err(NameError::TooLong { what, max });
    }
    if let Some(character) = text.chars().find(|c| c.is_control()) {
        return Err(NameError::Character { what, character });
    }
    Ok(text.to_owned())
}

/// The name somebody signs in with: trimmed, lower-cased, 1 to 64 of letters and
/// digits of any script, `.`, `_`, `-`, `@`, `+`.
pub fn login(text: &str) -> Result<String, NameError> {
    let what = "sign-in name";
    let text = title(what, &text.to_lowercase(), 64)?;
    match text
        .chars()
        .find(|c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+')))
    {
        Some(character) => Err(NameError::Character { what, character }),
        None => Ok(text),
    }
}

/// The name of a machine in the network: one DNS label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

impl Hostname {
    /// Makes a label out of any text and a suffix that keeps it unique: what is
    /// not `a-z0-9` becomes `-`; at most 40 characters of the text are kept.
    pub fn from_text(text: &str, suffix: &str) -> Hostname {
        let keep = |s: &str, max: usize| -> String {
            let mut out = String::new();
            for c in s.chars().flat_map(char::to_lowercase) {
                let c = if c.is_ascii_lowercase() || c.is_ascii_digit() {
                    c
                } else {
                    '-'
                };
                if c == '-' && (out.is_empty() || out.ends_with('-')) {
                    continue;
                }
                out.push(c);
                if out.len() == max {
                    break;
                }
            }
            out.trim_end_matches('-').to_owned()
        };
        let (head, tail) = (keep(text, 40), keep(suffix, 20));
        Hostname(match (head.is_empty(), tail.is_empty()) {
            (false, false) => format!("{head}-{tail}"),
            (false, true) => head,
            (true, false) => format!("desktop-{tail}"),
            (true, true) => "desktop".to_owned(),
        })
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Hostname {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Hostname {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        let what = "host name";
        if text.is_empty() || text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Empty { what });
        }
        if text.len() > 63 {
            return Err(NameError::TooLong { what, max: 63 });
        }
        match text
            .chars()
            .find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
        {
            Some(character) => Err(NameError::Character { what, character }),
            None => Ok(Hostname(text)),
        }
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_makes_a_valid_label(text in ".*", suffix in ".{0,30}") {
            let name = Hostname::from_text(&text, &suffix);
            prop_assert!(Hostname::try_from(name.as_str().to_owned()).is_ok(), "{name}");
        }
        #[test]
        fn titles_never_hold_control_characters(text in "\\PC*|.*") {
            if let Ok(t) = title("course", &text, 80) {
                prop_assert!(!t.chars().any(char::is_control) && !t.is_empty());
            }
        }
    }
}
