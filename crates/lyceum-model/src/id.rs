//! Identifiers, one type per kind, so that a course can't be passed where a
//! desktop is meant.
//!
//! Every identifier is 1 to 64 characters of `a-z`, `0-9` and `-`, begins with a
//! letter or digit, and so is safe as a file name, a path segment of a URL and a
//! host name label by construction. Parsing is the only way in, also for serde.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} id {text:?} is not valid: use 1 to 64 characters of a-z, 0-9 and '-', beginning with a letter or digit"
)]
pub struct IdError {
    /// The kind of id that was expected, for example `desktop`.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub text: String,
}

fn valid(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes[0] != b'-'
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new one; version 7 UUID, so that ids sort by the time they were made.
            pub fn new() -> Self {
                $name(uuid::Uuid::now_v7().to_string())
            }
            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if valid(text) {
                    Ok($name(text.to_owned()))
                } else {
                    Err(IdError { kind: $kind, text: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    )*};
}

ids! {
    /// A person who can sign in.
    UserId = "user";
    /// A course: roster, image, desktop size.
    CourseId = "course";
    /// A golden image: a named, maintained image.
    ImageId = "image";
    /// One sealed version of a golden image; the lower-case hex blake3 of its manifest.
    ReleaseId = "release";
    /// A golden image that is open for change.
    DraftId = "draft";
    /// A VM of one person in one course, running or not.
    DesktopId = "desktop";
    /// A KVM server.
    HostId = "host";
    /// A writable disk on the slow tier over a release.
    OverlayId = "overlay";
    /// Saved pages, device state and disk of a running desktop.
    DeltaId = "delta";
    /// A restore point of a desktop's disk.
    PointId = "point";
    /// Work that a person asked for and that takes time.
    OperationId = "operation";
    /// A job on an agent (import, seal).
    JobId = "job";
    /// A move of a running desktop to another host.
    MoveId = "move";
    /// What the planner proposed, and how far it is carried out.
    PlanId = "plan";
    /// A lesson of the timetable.
    LessonId = "lesson";
    /// A term or a holiday.
    SchoolDaysId = "school days";
    /// A signed-in browser or program.
    SessionId = "session";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn path_tricks_are_not_ids() {
        for text in [
            "", ".", "..", "../x", "a/b", "a\\b", "-rf", "A", "a\0b", "a b", "é",
        ] {
            assert!(text.parse::<DesktopId>().is_err(), "{text:?} was taken");
        }
        assert!("a".repeat(65).parse::<DesktopId>().is_err());
    }

    #[test]
    fn serde_goes_through_the_parser() {
        assert!(serde_json::from_str::<DesktopId>("\"../etc\"").is_err());
        let id: DesktopId = serde_json::from_str("\"d-1\"").expect("valid");
        assert_eq!(id.as_str(), "d-1");
    }

    proptest! {
        #[test]
        fn any_id_that_parses_is_one_plain_path_segment(text in ".{0,70}") {
            if let Ok(id) = text.parse::<OverlayId>() {
                let path = std::path::Path::new(id.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(path.is_relative());
                prop_assert_ne!(id.as_str(), "..");
            }
        }
    }
}
