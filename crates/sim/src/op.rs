//! A controller's calls as the model carries them out, and the plan that is under way: what is left to send, in its order.

use crate::object::{Id, Mentions, Owner, Status};
use crate::pass::Pass;

/// One call to the API: a step of a plan, or the live read that precedes adoption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// GET the set: it must still be this one, and not be going.
    #[default]
    CheckSet,
    AdoptRevision {
        template: u8,
        uid: u8,
    },
    AdoptPod {
        ordinal: u8,
        uid: u8,
    },
    ReleasePod {
        ordinal: u8,
        uid: u8,
    },
    CreateRevision {
        template: u8,
        number: u8,
    },
    RenumberRevision {
        template: u8,
        uid: u8,
        number: u8,
    },
    DeleteRevision {
        template: u8,
        uid: u8,
    },
    CreateClaim {
        ordinal: u8,
    },
    PatchClaim {
        ordinal: u8,
        uid: u8,
        version: u8,
        owner: Owner,
    },
    CreatePod {
        ordinal: u8,
        revision: u8,
    },
    UpdatePod {
        ordinal: u8,
        uid: u8,
    },
    DeletePod {
        ordinal: u8,
        uid: u8,
    },
    WriteStatus {
        version: u8,
        status: Status,
    },
}

/// Which part of a plan a step is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    #[default]
    Prologue,
    Stages,
    Closing,
}

/// A step that is still to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) part: Part,
    pub(crate) wave: u8,
    pub(crate) lane: u8,
    pub(crate) op: Op,
}

/// Steps a plan can hold.
const ENTRIES: usize = 20;

/// What is left of a plan, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Todo {
    len: u8,
    entries: [Entry; ENTRIES],
}

impl Default for Todo {
    fn default() -> Todo {
        Todo {
            len: 0,
            entries: [Entry::default(); ENTRIES],
        }
    }
}

impl Todo {
    /// These steps.
    pub(crate) fn of(entries: &[Entry]) -> Todo {
        let mut todo = Todo::default();
        todo.entries[..entries.len()].copy_from_slice(entries);
        todo.len = u8::try_from(entries.len()).expect("a plan of a small world is short");
        todo
    }

    pub(crate) fn all(&self) -> &[Entry] {
        &self.entries[..usize::from(self.len)]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places of the steps that may be sent now: the first of each lane of the first wave.
    pub(crate) fn sendable(&self) -> impl Iterator<Item = usize> + '_ {
        let all = self.all();
        let first = all.first().copied().unwrap_or_default();
        let same = move |entry: &Entry| (entry.part, entry.wave) == (first.part, first.wave);
        (0..all.len()).filter(move |&at| {
            same(&all[at]) && (at == 0 || !same(&all[at - 1]) || all[at - 1].lane != all[at].lane)
        })
    }

    /// Drops what does not satisfy `keep`.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let kept: Vec<Entry> = self.all().iter().copied().filter(keep).collect();
        *self = Todo::of(&kept);
    }

    /// Takes the step at this place out.
    pub(crate) fn take(&mut self, at: usize) -> Entry {
        let entry = self.entries[at];
        let len = usize::from(self.len);
        self.entries.copy_within(at + 1..len, at);
        self.entries[len - 1] = Entry::default();
        self.len -= 1;
        entry
    }

    pub(crate) fn pass(&mut self, pass: &mut impl Pass) {
        pass.bits(&mut self.len, 5);
        for entry in &mut self.entries[..usize::from(self.len)] {
            entry.pass(pass);
        }
    }

    /// Status steps are about this version of the set.
    pub(crate) fn set_version(&mut self, seen: u8) {
        for entry in &mut self.entries[..usize::from(self.len)] {
            if let Op::WriteStatus { version, .. } = &mut entry.op {
                *version = seen;
            }
        }
    }

    /// Counts waves and lanes from zero again: what was sent leaves no trace.
    pub(crate) fn renumber(&mut self) {
        let len = usize::from(self.len);
        let (mut wave, mut lane) = (0, 0);
        let mut before: Option<Entry> = None;
        for entry in &mut self.entries[..len] {
            let now = *entry;
            match before {
                Some(before) if (before.part, before.wave) != (now.part, now.wave) => {
                    (wave, lane) = (wave + 1, 0)
                }
                Some(before) if before.lane != now.lane => lane += 1,
                Some(_) | None => {}
            }
            (entry.wave, entry.lane) = (wave, lane);
            before = Some(now);
        }
    }
}

impl Mentions for Todo {
    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8)) {
        for entry in &mut self.entries[..usize::from(self.len)] {
            entry.op.ids(each);
        }
    }
}

impl Entry {
    fn pass(&mut self, pass: &mut impl Pass) {
        let mut part = match self.part {
            Part::Prologue => 0,
            Part::Stages => 1,
            Part::Closing => 2,
        };
        pass.bits(&mut part, 2);
        self.part = match part {
            0 => Part::Prologue,
            1 => Part::Stages,
            _ => Part::Closing,
        };
        pass.bits(&mut self.wave, 5);
        pass.bits(&mut self.lane, 3);
        self.op.pass(pass);
    }
}

/// The fields of every call side by side, for one walk over them all.
#[derive(Default)]
struct Fields {
    about: u8,
    uid: u8,
    more: u8,
    owner: Owner,
    status: Status,
}

impl Op {
    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8)) {
        match self {
            Op::AdoptRevision { template, uid }
            | Op::RenumberRevision {
                template,
                uid,
                number: _,
            }
            | Op::DeleteRevision { template, uid } => {
                each(Id::RevisionUid(usize::from(*template)), uid)
            }
            Op::AdoptPod { ordinal, uid }
            | Op::ReleasePod { ordinal, uid }
            | Op::UpdatePod { ordinal, uid }
            | Op::DeletePod { ordinal, uid } => each(Id::PodUid(usize::from(*ordinal)), uid),
            Op::PatchClaim {
                ordinal,
                uid,
                version,
                owner,
            } => {
                let ordinal = usize::from(*ordinal);
                each(Id::ClaimUid(ordinal), uid);
                each(Id::ClaimVersion(ordinal), version);
                owner.ids(ordinal, each);
            }
            Op::WriteStatus { version, status: _ } => each(Id::SetVersion, version),
            Op::CheckSet
            | Op::CreateRevision { .. }
            | Op::CreateClaim { .. }
            | Op::CreatePod { .. } => {}
        }
    }

    fn pass(&mut self, pass: &mut impl Pass) {
        let (mut code, mut fields) = self.fields();
        pass.bits(&mut code, 4);
        pass.bits(&mut fields.about, 2);
        pass.bits(&mut fields.uid, 4);
        pass.bits(&mut fields.more, 4);
        if code == 8 {
            fields.owner.pass(pass);
        }
        if code == 12 {
            fields.status.pass(pass);
        }
        *self = Op::from_fields(code, fields);
    }

    fn fields(&self) -> (u8, Fields) {
        let of = |about, uid, more| Fields {
            about,
            uid,
            more,
            ..Fields::default()
        };
        match *self {
            Op::CheckSet => (0, Fields::default()),
            Op::AdoptRevision { template, uid } => (1, of(template, uid, 0)),
            Op::AdoptPod { ordinal, uid } => (2, of(ordinal, uid, 0)),
            Op::ReleasePod { ordinal, uid } => (3, of(ordinal, uid, 0)),
            Op::CreateRevision { template, number } => (4, of(template, 0, number)),
            Op::RenumberRevision {
                template,
                uid,
                number,
            } => (5, of(template, uid, number)),
            Op::DeleteRevision { template, uid } => (6, of(template, uid, 0)),
            Op::CreateClaim { ordinal } => (7, of(ordinal, 0, 0)),
            Op::PatchClaim {
                ordinal,
                uid,
                version,
                owner,
            } => (
                8,
                Fields {
                    owner,
                    ..of(ordinal, uid, version)
                },
            ),
            Op::CreatePod { ordinal, revision } => (9, of(ordinal, 0, revision)),
            Op::UpdatePod { ordinal, uid } => (10, of(ordinal, uid, 0)),
            Op::DeletePod { ordinal, uid } => (11, of(ordinal, uid, 0)),
            Op::WriteStatus { version, status } => (
                12,
                Fields {
                    status,
                    ..of(0, 0, version)
                },
            ),
        }
    }

    fn from_fields(code: u8, fields: Fields) -> Op {
        let Fields {
            about,
            uid,
            more,
            owner,
            status,
        } = fields;
        match code {
            0 => Op::CheckSet,
            1 => Op::AdoptRevision {
                template: about,
                uid,
            },
            2 => Op::AdoptPod {
                ordinal: about,
                uid,
            },
            3 => Op::ReleasePod {
                ordinal: about,
                uid,
            },
            4 => Op::CreateRevision {
                template: about,
                number: more,
            },
            5 => Op::RenumberRevision {
                template: about,
                uid,
                number: more,
            },
            6 => Op::DeleteRevision {
                template: about,
                uid,
            },
            7 => Op::CreateClaim { ordinal: about },
            8 => Op::PatchClaim {
                ordinal: about,
                uid,
                version: more,
                owner,
            },
            9 => Op::CreatePod {
                ordinal: about,
                revision: more,
            },
            10 => Op::UpdatePod {
                ordinal: about,
                uid,
            },
            11 => Op::DeletePod {
                ordinal: about,
                uid,
            },
            _ => Op::WriteStatus {
                version: more,
                status,
            },
        }
    }
}
