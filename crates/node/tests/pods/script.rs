//! What a container's shell command does in time: just the few words that the tests use.

use jiff::SignedDuration;

/// A command as a course of time from its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Script {
    /// It cannot even be started.
    pub(crate) unstartable: bool,
    /// When it ends by itself, and how.
    pub(crate) end: Option<(SignedDuration, i32)>,
    /// From when on it answers the stop signal, and with which exit code; without, it is deaf.
    pub(crate) hears: Option<(SignedDuration, i32)>,
    /// When `/tmp/ok` appears and vanishes.
    pub(crate) ok: Vec<(SignedDuration, bool)>,
}

impl Script {
    /// Reads a command: a program, or `sh -c` and a text.
    pub(crate) fn parse(command: &[String]) -> Self {
        match command {
            [shell, flag, text, ..] if shell == "sh" && flag == "-c" => Self::read(text),
            _ => Self {
                unstartable: true,
                ..Self::default()
            },
        }
    }

    fn read(text: &str) -> Self {
        let mut script = Self::default();
        let mut at = SignedDuration::ZERO;
        let mut last = 0;
        for word in text.split(';').map(str::trim) {
            let mut parts = word.split_whitespace();
            match (
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default(),
            ) {
                ("sleep", time) => at += seconds(time),
                ("exit", "$?") => return script.ending(at, last),
                ("exit", code) => return script.ending(at, code.parse().unwrap_or(0)),
                ("while", _) => return script,
                ("exec", _) => {
                    script.hears = None;
                    return script;
                }
                ("trap", "''") => script.hears = None,
                ("trap", _) => script.hears = Some((at, 0)),
                ("touch", _) => script.ok.push((at, true)),
                ("rm", _) => script.ok.push((at, false)),
                // What is a signal to itself in a shell is no process at all once `$$` is expanded to `$`.
                ("sh", _) => last = 1,
                _ => {}
            }
        }
        script.ending(at, 0)
    }

    fn ending(mut self, at: SignedDuration, code: i32) -> Self {
        self.end = Some((at, code));
        self
    }

    /// Whether `/tmp/ok` is there so long after the start.
    pub(crate) fn is_ok(&self, after: SignedDuration) -> bool {
        self.ok
            .iter()
            .rfind(|(at, _)| *at <= after)
            .is_some_and(|(_, there)| *there)
    }
}

fn seconds(text: &str) -> SignedDuration {
    SignedDuration::from_secs_f64(text.parse().unwrap_or(0.0))
}
