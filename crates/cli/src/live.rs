//! Showing progress: a picture that redraws itself in a terminal, one plain line an event elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::picture::{OrdinalPhase, OrdinalPicture, SetPicture};

/// What has been shown so far. Times are measured here, where a person watches: the API's have whole seconds.
pub(crate) struct Live {
    terminal: bool,
    colour: bool,
    /// Lines drawn last, to be drawn over.
    drawn: usize,
    seen: BTreeMap<String, Seen>,
}

/// One pod as it was last shown.
struct Seen {
    phase: OrdinalPhase,
    because: Option<String>,
    /// When its present start was first seen.
    since: Instant,
    /// How long it took until it was ready.
    ready_after: Option<Duration>,
}

impl Live {
    /// Draws where standard output is a terminal, else writes lines.
    pub(crate) fn new() -> Live {
        let terminal = std::io::stdout().is_terminal();
        Live {
            terminal,
            colour: terminal && std::env::var_os("NO_COLOR").is_none(),
            drawn: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Shows the sets as they are now.
    pub(crate) fn show(&mut self, sets: &[SetPicture], now: Instant) {
        let events = self.observe(sets, now);
        if self.terminal {
            self.redraw(sets);
        } else {
            for line in events {
                println!("{line}");
            }
        }
    }

    /// A line of its own, below the picture, which stays as it is.
    pub(crate) fn say(&mut self, line: &str) {
        self.drawn = 0;
        println!("{line}");
    }

    /// Takes in what changed; each change is one line.
    fn observe(&mut self, sets: &[SetPicture], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for set in sets {
            for ordinal in &set.ordinals {
                lines.extend(self.observe_ordinal(set, ordinal, now));
            }
        }
        lines
    }

    fn observe_ordinal(
        &mut self,
        set: &SetPicture,
        ordinal: &OrdinalPicture,
        now: Instant,
    ) -> Option<String> {
        let key = format!("{}/{}", set.namespace, ordinal.pod);
        let before = self.seen.get(&key);
        let same = before
            .is_some_and(|seen| seen.phase == ordinal.phase && seen.because == ordinal.because);
        if same || (before.is_none() && ordinal.phase == OrdinalPhase::Waiting) {
            return None;
        }
        let restarted = before.is_none_or(|seen| {
            matches!(seen.phase, OrdinalPhase::Waiting | OrdinalPhase::Stopping)
                && ordinal.phase != seen.phase
        });
        let since = before.filter(|_| !restarted).map_or(now, |seen| seen.since);
        let was_watched = before.is_some() && ordinal.phase == OrdinalPhase::Ready;
        let ready_after = was_watched.then(|| now.duration_since(since));
        self.seen.insert(
            key.clone(),
            Seen {
                phase: ordinal.phase,
                because: ordinal.because.clone(),
                since,
                ready_after,
            },
        );
        Some(format!("{key} {}", self.describe(&key, ordinal)))
    }

    /// "ready after 0.2 s at 10.0.0.3", "starting (CrashLoopBackOff: ...)".
    fn describe(&self, key: &str, ordinal: &OrdinalPicture) -> String {
        let mut text = ordinal.phase.word().to_owned();
        if let Some(after) = self.seen.get(key).and_then(|seen| seen.ready_after) {
            text += &format!(" after {:.1} s", after.as_secs_f64());
        }
        if let (OrdinalPhase::Ready, Some(address)) = (ordinal.phase, &ordinal.address) {
            text += &format!(" at {address}");
        }
        if let Some(because) = &ordinal.because {
            text += &format!(" ({because})");
        }
        text
    }

    fn redraw(&mut self, sets: &[SetPicture]) {
        let width = columns();
        let lines: Vec<String> = sets
            .iter()
            .flat_map(|set| self.lines_of(set))
            .map(|line| cut(&line, width))
            .collect();
        self.erase();
        let mut out = std::io::stdout().lock();
        for line in &lines {
            // A terminal that went away ends the picture, not the cluster.
            let _ = writeln!(out, "{}", self.paint(line));
        }
        let _ = out.flush();
        self.drawn = lines.len();
    }

    fn lines_of(&self, set: &SetPicture) -> Vec<String> {
        let mut lines = vec![format!(
            "{}/{}  {}/{} ready",
            set.namespace, set.name, set.ready, set.wanted
        )];
        for ordinal in &set.ordinals {
            let key = format!("{}/{}", set.namespace, ordinal.pod);
            lines.push(format!(
                "  {} {:<16} {}",
                mark(ordinal.phase),
                ordinal.pod,
                self.describe(&key, ordinal)
            ));
        }
        if !set.is_complete() {
            lines.extend(
                set.waits_for
                    .iter()
                    .take(3)
                    .map(|why| format!("    waits: {why}")),
            );
        }
        lines
    }

    fn paint(&self, line: &str) -> String {
        let colour = match line.trim_start().chars().next() {
            Some('●') => "32",
            Some('◐') => "33",
            Some('○') => "2",
            _ => return line.to_owned(),
        };
        if self.colour {
            format!("\x1b[{colour}m{line}\x1b[0m")
        } else {
            line.to_owned()
        }
    }

    /// Goes back to the first line drawn and clears from there.
    fn erase(&mut self) {
        if self.drawn > 0 {
            print!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

fn mark(phase: OrdinalPhase) -> char {
    match phase {
        OrdinalPhase::Ready => '●',
        OrdinalPhase::Starting | OrdinalPhase::Stopping => '◐',
        OrdinalPhase::Waiting => '○',
    }
}

/// Cuts to the width of the terminal: a wrapped line could not be drawn over.
fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// Columns of the terminal; 80 where it does not tell.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map_or(80, |size| usize::from(size.ws_col))
        .max(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(phase: OrdinalPhase, because: Option<&str>) -> SetPicture {
        let ordinal = OrdinalPicture {
            pod: "web-0".into(),
            phase,
            because: because.map(str::to_owned),
            address: Some("10.0.0.2".into()),
            claims: BTreeMap::new(),
            restarts: 0,
        };
        let ready = u64::from(phase == OrdinalPhase::Ready);
        SetPicture {
            namespace: "default".into(),
            name: "web".into(),
            wanted: 1,
            ready,
            updating: false,
            ordinals: vec![ordinal],
            waits_for: vec![],
        }
    }

    #[test]
    fn each_change_is_told_once_with_the_time_it_took() {
        let mut live = Live {
            terminal: false,
            colour: false,
            drawn: 0,
            seen: BTreeMap::new(),
        };
        let start = Instant::now();
        let mut told = |phase, because, millis| {
            live.observe(
                &[picture(phase, because)],
                start + Duration::from_millis(millis),
            )
        };
        assert!(told(OrdinalPhase::Waiting, None, 0).is_empty());
        assert_eq!(
            told(OrdinalPhase::Starting, None, 100),
            ["default/web-0 starting"]
        );
        assert!(told(OrdinalPhase::Starting, None, 200).is_empty());
        assert_eq!(
            told(OrdinalPhase::Starting, Some("Error"), 300),
            ["default/web-0 starting (Error)"]
        );
        assert_eq!(
            told(OrdinalPhase::Ready, None, 1300),
            ["default/web-0 ready after 1.2 s at 10.0.0.2"]
        );
        assert_eq!(
            told(OrdinalPhase::Stopping, None, 2000),
            ["default/web-0 stopping"]
        );
        assert_eq!(
            told(OrdinalPhase::Starting, None, 3000),
            ["default/web-0 starting"]
        );
        assert_eq!(
            told(OrdinalPhase::Ready, None, 3500),
            ["default/web-0 ready after 0.5 s at 10.0.0.2"]
        );
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
    }
}
