//! How a command ends when it does not succeed: one message, one exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the server refused, or what was asked for failed |
//! | 2 | bad input: arguments, a file, an object; nothing was sent |
//! | 3 | no Stead runs on this data folder |
//! | 4 | the time given ran out; what was begun goes on |
//! | other | `exec` ends with the code of the program it ran |

use std::error::Error;
use std::io;
use std::process::ExitCode;

/// The server refused, or what was asked for failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Bad input: nothing was sent.
pub(crate) const EXIT_USAGE: u8 = 2;
/// No Stead runs on this data folder.
pub(crate) const EXIT_NOT_RUNNING: u8 = 3;
/// The time given ran out.
pub(crate) const EXIT_TIMEOUT: u8 = 4;

/// Why a command did not do what it was asked: names the object, the cause and, where there is one, the next step.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    exit: u8,
}

impl Failure {
    /// The server refused, or what was asked for failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            exit: EXIT_FAILED,
        }
    }

    /// Bad input; nothing was sent.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            exit: EXIT_USAGE,
        }
    }

    /// No daemon on this data folder.
    pub(crate) fn not_running(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            exit: EXIT_NOT_RUNNING,
        }
    }

    /// The time given ran out.
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            exit: EXIT_TIMEOUT,
        }
    }

    /// The system said no to something we tried.
    pub(crate) fn system(what: &str, source: io::Error) -> Self {
        Failure::caused(&format!("could not {what}"), &source)
    }

    /// What was tried, then the whole chain of causes.
    pub(crate) fn caused(what: &str, error: &dyn Error) -> Self {
        Failure::failed(chain(what, error))
    }

    /// Tells it on standard error.
    pub(crate) fn report(self) -> ExitCode {
        eprintln!("stead: {}", self.message);
        ExitCode::from(self.exit)
    }
}

/// One line of a chain of causes. A cause that only repeats the end of what was said before is left out.
fn chain(what: &str, error: &dyn Error) -> String {
    let mut text = what.to_owned();
    let mut next = Some(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_causes_is_told_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Outer(#[source] io::Error);
        let outer = Outer(io::Error::other("inner"));
        assert_eq!(chain("could not x", &outer), "could not x: outer: inner");
    }
}
