//! Exit codes, which scripts may rely on, and the error that carries one.

use std::fmt;

/// Everything was done.
pub const DONE: u8 = 0;
/// What was asked for was not, or not wholly, reached; `doctor` found something that fails.
pub const FAILED: u8 = 1;
/// The command line is not right (also what clap uses).
pub const USAGE: u8 = 2;
/// The controller said no: no such thing, not allowed, not possible, no room.
pub const REFUSED: u8 = 3;
/// The controller could not be reached, or did not answer as one.
pub const UNREACHABLE: u8 = 4;
/// Interrupted with Ctrl-C while waiting; the work itself goes on.
pub const INTERRUPTED: u8 = 130;

/// Shown at the end of `lyceum --help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    not, or not wholly, reached; doctor found something that fails
  2    the command line is not right
  3    refused by the controller: no such thing, not allowed, no room
  4    the controller could not be reached
  130  interrupted while waiting; the work itself goes on";

/// An error that ends the program with a code of its own.
#[derive(Debug)]
pub struct Exit {
    /// The code.
    pub code: u8,
    /// What to tell; empty when all was said already.
    pub message: String,
}

impl Exit {
    /// An error with a code.
    pub fn coded(code: u8, message: impl Into<String>) -> anyhow::Error {
        Exit {
            code,
            message: message.into(),
        }
        .into()
    }

    /// A wrong command line that clap can't see.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::coded(USAGE, message)
    }

    /// All was said; only the code is left.
    pub fn silent(code: u8) -> anyhow::Error {
        Self::coded(code, "")
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}
