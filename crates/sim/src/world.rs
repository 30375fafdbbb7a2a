//! A small world's bounds: what the set is like, what its user will do, what may go wrong and how often.

use crate::object::Retention;

/// `spec.updateStrategy`; the partition is part of the set's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Strategy {
    /// RollingUpdate with this `maxUnavailable`.
    Rolling(u8),
    /// RollingUpdate with `rollingUpdate: null`.
    RollingNull,
    OnDelete,
    /// KEP-3541, for `stead.dev/v1`.
    Recreate,
}

/// What of a set never changes in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    pub(crate) parallel: bool,
    pub(crate) strategy: Strategy,
    /// The set has one claim template.
    pub(crate) claims: bool,
    /// `whenDeleted: Delete`.
    pub(crate) delete_with_set: bool,
    /// `whenScaled: Delete`.
    pub(crate) delete_with_pod: bool,
    /// `minReadySeconds` is above zero.
    pub(crate) min_ready: bool,
    /// `revisionHistoryLimit`.
    pub(crate) history: u8,
}

/// How the user deletes the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What can happen only so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Budget {
    Template,
    Scale,
    Start,
    Delete,
    Recreate,
    PodDelete,
    Fail,
    Unready,
    Tamper,
    ClaimDelete,
    Retention,
    Stranger,
    Crash,
    LostReply,
    Conflict,
    Refusal,
    Failover,
}

pub(crate) const BUDGETS: usize = 17;

impl Budget {
    pub(crate) fn index(self) -> usize {
        match self {
            Budget::Template => 0,
            Budget::Scale => 1,
            Budget::Start => 2,
            Budget::Delete => 3,
            Budget::Recreate => 4,
            Budget::PodDelete => 5,
            Budget::Fail => 6,
            Budget::Unready => 7,
            Budget::Tamper => 8,
            Budget::Crash => 9,
            Budget::LostReply => 10,
            Budget::Conflict => 11,
            Budget::Refusal => 12,
            Budget::Failover => 13,
            Budget::ClaimDelete => 14,
            Budget::Retention => 15,
            Budget::Stranger => 16,
        }
    }
}

/// The bounds of a world. Everything within them is explored; nothing else bounds the search.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Its name in the matrix.
    pub name: &'static str,
    pub(crate) settings: Settings,
    pub(crate) replicas: u8,
    pub(crate) partition: u8,
    /// The templates the user goes to, one after another; the set begins with 0.
    pub(crate) templates: &'static [u8],
    /// The replicas the user goes to.
    pub(crate) scales: &'static [u8],
    /// The first ordinals the user goes to; the set begins with 0.
    pub(crate) starts: &'static [u8],
    pub(crate) delete: Option<Propagation>,
    /// The user makes the set again once it is gone.
    pub(crate) recreate: bool,
    /// Templates whose pods never become ready.
    pub(crate) broken: &'static [u8],
    /// Pods the user deletes.
    pub(crate) pod_deletes: u8,
    /// Pods that end for good.
    pub(crate) fails: u8,
    /// Pods that become unready, and ready again.
    pub(crate) unready: u8,
    /// Pods that lose their pod-name label.
    pub(crate) tampers: u8,
    /// Claims the user deletes.
    pub(crate) claim_deletes: u8,
    /// The retention policies the user goes to.
    pub(crate) retentions: &'static [Retention],
    /// Claims that somebody else takes as their controller, or lets go again.
    pub(crate) strangers: u8,
    /// Controllers that stop after a call, and start with nothing but what the API shows.
    pub(crate) crashes: u8,
    /// Replies that are lost after the write took effect.
    pub(crate) lost_replies: u8,
    /// Objects that somebody else writes between our read and our write.
    pub(crate) conflicts: u8,
    /// Calls the API refuses: 403 quota, 422 webhook, 429, 500.
    pub(crate) refusals: u8,
    /// Controllers that lose their lease and do not know it.
    pub(crate) failovers: u8,
    /// Events of each kind (sets, pods, claims, revisions) that a cache may be behind.
    pub(crate) lag: [u8; 4],
    /// Events by which a restarted controller may be set back, for the server it lists from is behind.
    pub(crate) rewind: u8,
    /// The world begins with the set at rest, instead of newly made.
    pub(crate) settled: bool,
}

impl World {
    /// Some policy of the world, the first or an edited one, lets claims go with the set, and with the pod.
    pub(crate) fn ever_deletes(&self) -> Retention {
        let first = Retention {
            delete_with_set: self.settings.delete_with_set,
            delete_with_pod: self.settings.delete_with_pod,
        };
        self.retentions
            .iter()
            .fold(first, |either, edited| Retention {
                delete_with_set: either.delete_with_set || edited.delete_with_set,
                delete_with_pod: either.delete_with_pod || edited.delete_with_pod,
            })
    }

    /// The same world with nothing ever going wrong between controller and API.
    pub(crate) fn without_faults(mut self) -> World {
        self.crashes = 0;
        self.lost_replies = 0;
        self.conflicts = 0;
        self.refusals = 0;
        self.failovers = 0;
        self.lag = [0; 4];
        self.rewind = 0;
        self
    }

    /// The first lines of its scenarios: the set, and how it begins.
    pub(crate) fn opening(&self) -> Vec<String> {
        let Settings {
            parallel,
            strategy,
            claims,
            delete_with_set,
            delete_with_pod,
            min_ready,
            history,
        } = self.settings;
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let mut line = format!(
            "set web replicas={} policy={policy} history={history} template=A",
            self.replicas
        );
        line += &match strategy {
            Strategy::Rolling(max) => format!(" partition={} maxUnavailable={max}", self.partition),
            Strategy::RollingNull => " strategy=RollingUpdate".to_owned(),
            Strategy::OnDelete => " strategy=OnDelete".to_owned(),
            Strategy::Recreate => " strategy=Recreate api=stead.dev/v1".to_owned(),
        };
        let words = [
            (claims, " claims=data"),
            (delete_with_pod, " whenScaled=Delete"),
            (delete_with_set, " whenDeleted=Delete"),
            (min_ready, " minReadySeconds=30"),
        ];
        for (_, word) in words.iter().filter(|(said, _)| *said) {
            line += word;
        }
        let mut lines = vec![line];
        if self.settled {
            lines.push("run".to_owned());
        }
        lines
    }

    /// What is left at the beginning.
    pub(crate) fn budgets(&self) -> [u8; BUDGETS] {
        let length = |list: &[u8]| u8::try_from(list.len()).expect("a short list");
        let mut left = [0; BUDGETS];
        for (budget, amount) in [
            (Budget::Template, length(self.templates)),
            (Budget::Scale, length(self.scales)),
            (Budget::Start, length(self.starts)),
            (Budget::Delete, u8::from(self.delete.is_some())),
            (Budget::Recreate, u8::from(self.recreate)),
            (Budget::PodDelete, self.pod_deletes),
            (Budget::Fail, self.fails),
            (Budget::Unready, self.unready),
            (Budget::Tamper, self.tampers),
            (Budget::ClaimDelete, self.claim_deletes),
            (
                Budget::Retention,
                u8::try_from(self.retentions.len()).expect("a short list"),
            ),
            (Budget::Stranger, self.strangers),
            (Budget::Crash, self.crashes),
            (Budget::LostReply, self.lost_replies),
            (Budget::Conflict, self.conflicts),
            (Budget::Refusal, self.refusals),
            (Budget::Failover, self.failovers),
        ] {
            left[budget.index()] = amount;
        }
        left
    }
}
