//! Probes: when one is due, and what a run of answers means. Pure; the shell runs the probe itself.
//!
//! Upstream: `pkg/kubelet/prober/worker.go`. A verdict changes only after as many equal answers in a row as its
//! threshold asks for, and a failed liveness or startup probe rests until there is a new container.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

/// Which of the three questions a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Has it come up? The other two wait for it.
    Startup,
    /// Does it still live? If not it is restarted.
    Liveness,
    /// Can it take work now?
    Readiness,
}

impl ProbeKind {
    /// The kubelet's word for it, as messages have it.
    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// What holds before the first verdict.
    fn initially(self) -> Verdict {
        match self {
            ProbeKind::Startup => Verdict::Unknown,
            ProbeKind::Liveness => Verdict::Success,
            ProbeKind::Readiness => Verdict::Failure,
        }
    }
}

/// What is held to be true of a container in one respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not asked often enough yet.
    Unknown,
    /// Yes.
    Success,
    /// No.
    Failure,
}

/// One probe as the pod asks for it, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSpec {
    /// Which question.
    pub kind: ProbeKind,
    /// How it is asked.
    pub action: core::Probe,
    /// How long after the start of the container the first one is due.
    pub initial_delay: SignedDuration,
    /// From one to the next.
    pub period: SignedDuration,
    /// How long an answer may take.
    pub timeout: SignedDuration,
    /// Equal answers in a row before a success counts.
    pub success_threshold: u32,
    /// Equal answers in a row before a failure counts.
    pub failure_threshold: u32,
    /// Seconds of grace of its own when it ends the container.
    pub grace_seconds: Option<i64>,
}

impl ProbeSpec {
    /// Reads a probe with upstream's defaults.
    pub fn parse(kind: ProbeKind, probe: &core::Probe) -> Self {
        let seconds = |value: Option<i32>, default: i64, least: i64| {
            SignedDuration::from_secs(value.map_or(default, i64::from).max(least))
        };
        let times = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .unwrap_or(default)
                .max(1)
        };
        Self {
            kind,
            action: probe.clone(),
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            success_threshold: times(probe.success_threshold, 1),
            failure_threshold: times(probe.failure_threshold, 3),
            grace_seconds: probe.termination_grace_period_seconds,
        }
    }
}

/// The run of answers of one probe on one life of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRun {
    kind: ProbeKind,
    last: Option<bool>,
    run: u32,
    verdict: Verdict,
    resting: bool,
}

impl ProbeRun {
    /// Nothing asked yet.
    pub fn new(kind: ProbeKind) -> Self {
        Self {
            kind,
            last: None,
            run: 0,
            verdict: kind.initially(),
            resting: false,
        }
    }

    /// Goes on from what was held to be true when the daemon ended.
    pub fn resume(kind: ProbeKind, verdict: Verdict) -> Self {
        Self {
            verdict,
            ..Self::new(kind)
        }
    }

    /// What is held to be true now.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// No further probe makes sense before there is a new container.
    pub fn is_over(&self) -> bool {
        self.resting || (self.kind == ProbeKind::Startup && self.verdict == Verdict::Success)
    }

    /// Takes one answer; says whether the verdict changed by it.
    pub fn answer(&mut self, spec: &ProbeSpec, success: bool) -> bool {
        self.run = if self.last == Some(success) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        let threshold = if success {
            spec.success_threshold
        } else {
            spec.failure_threshold
        };
        if self.run < threshold {
            return false;
        }
        let verdict = if success {
            Verdict::Success
        } else {
            Verdict::Failure
        };
        self.resting = !success && self.kind != ProbeKind::Readiness;
        std::mem::replace(&mut self.verdict, verdict) != verdict
    }

    /// When the first probe of a container that started at `started` is due.
    pub fn first_due(spec: &ProbeSpec, started: Timestamp) -> Timestamp {
        started
            .saturating_add(spec.initial_delay)
            .unwrap_or(started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text`: answers `.` (success) and `x`; the result is the verdict after each (`?`, `+`, `-`), `|` once it is over.
    fn check(kind: ProbeKind, success: i32, failure: i32, text: &str, expected: &str) {
        let spec = ProbeSpec::parse(
            kind,
            &core::Probe {
                success_threshold: Some(success),
                failure_threshold: Some(failure),
                ..core::Probe::default()
            },
        );
        let mut run = ProbeRun::new(kind);
        let mut seen = String::new();
        for answer in text.chars() {
            run.answer(&spec, answer == '.');
            seen.push(match run.verdict() {
                Verdict::Unknown => '?',
                Verdict::Success => '+',
                Verdict::Failure => '-',
            });
            if run.is_over() {
                seen.push('|');
                break;
            }
        }
        assert_eq!(seen, expected, "{kind:?} {success}/{failure} {text}");
    }

    #[test]
    fn a_verdict_takes_as_many_equal_answers_as_its_threshold() {
        check(ProbeKind::Readiness, 1, 3, ".xx.xxx.", "++++++-+");
        check(ProbeKind::Readiness, 3, 1, "...x..", "--+---");
        check(ProbeKind::Liveness, 1, 2, "x.xx", "+++-|");
        check(ProbeKind::Startup, 1, 3, "xx.", "??+|");
        check(ProbeKind::Startup, 1, 2, "xxx", "?-|");
    }

    #[test]
    fn defaults_are_upstreams() {
        let spec = ProbeSpec::parse(ProbeKind::Liveness, &core::Probe::default());
        assert_eq!(
            (spec.period, spec.timeout),
            (SignedDuration::from_secs(10), SignedDuration::from_secs(1))
        );
        assert_eq!((spec.success_threshold, spec.failure_threshold), (1, 3));
    }
}
