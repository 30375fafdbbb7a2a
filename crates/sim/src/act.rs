//! Everything that can happen next in a state: what controllers, kubelet, user and garbage collector do, and what goes wrong.

use std::collections::HashMap;
use std::fmt;

use stead_statefulset::{self as statefulset, Step, check as shipped};

use crate::api::{self, Refusal};
use crate::check::{self, RULES, Violation, letter};
use crate::mutant::Mutant;
use crate::object::{
    Claims, Deleting, Id, KINDS, Kind, Life, ORDINALS, Owner, Pods, Retention, Revisions, Set,
    Status,
};
use crate::op::{Entry, Op, Part, Todo};
use crate::state::{Controller, State};
use crate::view::{Facts, View};
use crate::world::{Budget, Propagation, World};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A round begins: the controller looks at its caches and decides.
    Decide {
        who: usize,
    },
    /// A call of the round's plan.
    Send {
        who: usize,
        op: Op,
        reply: Reply,
    },
    /// After a failure, what is left of the wave is not sent.
    Leave {
        who: usize,
    },
    /// A watch tells its next event.
    Deliver {
        who: usize,
        kind: Kind,
    },
    /// The controller stops and starts again.
    Crash,
    /// The same, and the server it lists this kind from is behind.
    CrashBack {
        kind: Kind,
    },
    /// The controller loses its lease without knowing; another takes over.
    Failover,
    /// The one without a lease learns of it and stops.
    StepDown,
    /// A node takes the pod.
    Binds {
        ordinal: usize,
    },
    /// The pod runs, but will never be ready.
    RunsInVain {
        ordinal: usize,
    },
    BecomesReady {
        ordinal: usize,
    },
    /// `minReadySeconds` pass.
    Ages {
        ordinal: usize,
    },
    Fails {
        ordinal: usize,
    },
    BecomesUnready {
        ordinal: usize,
    },
    /// The node has stopped a pod.
    Stops {
        ordinal: usize,
    },
    /// The user sets another template.
    Template {
        to: u8,
    },
    Scale {
        to: u8,
    },
    Start {
        to: u8,
    },
    DeleteSet {
        how: Propagation,
    },
    Recreate,
    DeletePod {
        ordinal: usize,
    },
    DeleteClaim {
        ordinal: usize,
    },
    /// The user edits what becomes of claims.
    Retain {
        to: Retention,
    },
    /// Somebody takes a claim as its controller, or lets it go again.
    StrangersClaim {
        ordinal: usize,
    },
    /// Somebody takes a pod's name label away.
    Tamper {
        ordinal: usize,
    },
    /// Somebody else writes the set.
    TouchSet,
    /// Somebody else writes a claim.
    TouchClaim {
        ordinal: usize,
    },
    CollectPod {
        ordinal: usize,
    },
    CollectClaim {
        ordinal: usize,
    },
    CollectRevision {
        template: usize,
    },
    /// The collector lets dependents go.
    LetPodGo {
        ordinal: usize,
    },
    LetClaimGo {
        ordinal: usize,
    },
    LetRevisionGo {
        template: usize,
    },
    /// A claim whose last pod is gone goes too.
    ClaimGoes {
        ordinal: usize,
    },
    /// The set goes after its dependents.
    SetGoes,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Accepted,
    Rejected(Refusal),
    /// The write took effect, its reply was lost.
    Lost,
    /// The API refuses: 403 quota or 422 webhook (creates), 429, 500.
    Refused,
}

impl Action {
    /// It happens no more once the faults have stopped and the user rests.
    pub(crate) fn is_fault(self) -> bool {
        match self {
            Action::Decide { .. }
            | Action::Leave { .. }
            | Action::Deliver { .. }
            | Action::StepDown => false,
            Action::Send {
                reply: Reply::Accepted | Reply::Rejected(_),
                ..
            } => false,
            Action::Send {
                reply: Reply::Lost | Reply::Refused,
                ..
            } => true,
            Action::Binds { .. }
            | Action::RunsInVain { .. }
            | Action::BecomesReady { .. }
            | Action::Ages { .. }
            | Action::Stops { .. } => false,
            Action::CollectPod { .. }
            | Action::CollectClaim { .. }
            | Action::CollectRevision { .. } => false,
            Action::LetPodGo { .. } | Action::LetClaimGo { .. } | Action::LetRevisionGo { .. } => {
                false
            }
            Action::ClaimGoes { .. } | Action::SetGoes => false,
            Action::Crash
            | Action::CrashBack { .. }
            | Action::Failover
            | Action::Fails { .. }
            | Action::BecomesUnready { .. } => true,
            Action::Template { .. }
            | Action::Scale { .. }
            | Action::Start { .. }
            | Action::DeleteSet { .. } => true,
            Action::Recreate
            | Action::DeletePod { .. }
            | Action::DeleteClaim { .. }
            | Action::Tamper { .. } => true,
            Action::TouchSet | Action::TouchClaim { .. } => true,
            Action::Retain { .. } | Action::StrangersClaim { .. } => true,
        }
    }
}

/// What a view was decided to need, in the model's words.
pub(crate) struct Verdict {
    entries: Vec<Entry>,
    again: bool,
    timer: bool,
    /// Names of the blockers, each once, in their order.
    pub(crate) reasons: Vec<&'static str>,
    broken: Option<Violation>,
}

/// A world with what was learned of it.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) mutant: &'a Mutant,
    facts: Facts,
    /// Every view decided so far.
    verdicts: HashMap<View, Verdict>,
}

/// Where an action leads, and what it breaks.
pub(crate) struct Next {
    pub(crate) action: Action,
    pub(crate) state: State,
    pub(crate) broken: Option<Violation>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(world: &'a World, mutant: &'a Mutant) -> Stage<'a> {
        Stage {
            world,
            mutant,
            facts: Facts::new(world.settings),
            verdicts: HashMap::new(),
        }
    }

    /// Views decided so far.
    pub(crate) fn decided(&self) -> usize {
        self.verdicts.len()
    }

    /// What a controller sees now; nothing where its cache shows no set.
    pub(crate) fn view(&self, state: &State, it: &Controller) -> Option<View> {
        let set = state.sets.then(it.place[0])?;
        let behind = KINDS.into_iter().find(|kind| {
            it.wrote[kind.index()] > it.place[kind.index()]
                && !self.mutant.shell.forgets_writes.contains(kind)
        });
        let mut settings = self.world.settings;
        if let Some(retention) = set.retention {
            settings.delete_with_set = retention.delete_with_set;
            settings.delete_with_pod = retention.delete_with_pod;
        }
        Some(View {
            settings,
            // A decision reads no version of the set; its status step gets it below.
            set: Set { version: 0, ..set },
            pods: state.pods.then(it.place[1]),
            claims: state.claims.then(it.place[2]),
            revisions: state.revisions.then(it.place[3]),
            behind,
        })
    }

    /// What is decided in this view.
    pub(crate) fn verdict(&mut self, view: &View) -> &Verdict {
        if !self.verdicts.contains_key(view) {
            let verdict = self.decide(view);
            self.verdicts.insert(*view, verdict);
        }
        &self.verdicts[view]
    }

    fn decide(&mut self, view: &View) -> Verdict {
        let (decision, entries, broken_shipped) = self.ask(view);
        let mut reasons: Vec<&'static str> = decision
            .blocked
            .iter()
            .map(statefulset::Blocker::reason)
            .collect();
        reasons.dedup();
        Verdict {
            broken: broken_shipped
                .or_else(|| broken_rule(view, &entries))
                .or_else(|| silent(view, &entries, &reasons)),
            entries,
            again: decision.needs_retry(),
            timer: decision.recheck_at.is_some() && !self.mutant.shell.no_timer,
            reasons,
        }
    }

    /// The shipped decision about what the mutant sees, and the calls that the mutant makes of it.
    fn ask(&mut self, view: &View) -> (statefulset::Decision, Vec<Entry>, Option<Violation>) {
        let mut seen_as = *view;
        (self.mutant.view)(&mut seen_as);
        let seen = self.facts.observe(&seen_as);
        let decision = statefulset::decide(&seen);
        let mut entries = self.facts.plan(&seen_as, &decision);
        (self.mutant.plan)(view, &mut entries);
        let shipped = shipped::all(&seen, &decision)
            .first()
            .map(|violation| Violation {
                rule: check::SHIPPED,
                what: format!("{}: {}", violation.rule, violation.what),
            });
        let broken = shipped.or_else(|| self.wrong_template(&decision));
        (decision, entries, broken)
    }

    fn wrong_template(&self, decision: &statefulset::Decision) -> Option<Violation> {
        decision.plan.steps().find_map(|step| match step {
            Step::CreatePod {
                pod,
                revision,
                template,
                ..
            } => {
                let right = self.facts.is_template_of(template.value(), revision);
                (!right).then(|| Violation {
                    rule: check::TEMPLATE,
                    what: format!("{pod} at {revision}"),
                })
            }
            _ => None,
        })
    }

    /// What is decided in this view, as a scenario tells it.
    pub(crate) fn lines(&mut self, view: &View) -> Vec<String> {
        let (decision, _, _) = self.ask(view);
        let steps = decision
            .plan
            .steps()
            .map(|step| self.facts.readable(&step.to_string()));
        let blocked = decision
            .blocked
            .iter()
            .map(|blocker| self.facts.readable(&format!("blocked {blocker}")));
        steps.chain(blocked).collect()
    }

    /// Everything that can happen next.
    pub(crate) fn each_next(&mut self, state: &State, each: &mut impl FnMut(Next)) {
        let deaf = self.mutant.shell.deaf_in_rounds;
        let each = &mut |mut next: Next| {
            if deaf {
                forget_wakes(state, &mut next);
            }
            each(next);
        };
        for who in 0..state.controllers.len() {
            self.controller(state, who, each);
        }
        let world = self.world;
        let mut others = |action, next: State, broken| self.emit(action, next, broken, each);
        troubles(world, state, &mut others);
        for ordinal in 0..ORDINALS {
            kubelet(world, state, ordinal, &mut others);
            interference(world, state, ordinal, &mut others);
        }
        user(world, state, &mut others);
        collector(world, state, &mut others);
    }

    fn controller(&mut self, state: &State, who: usize, each: &mut impl FnMut(Next)) {
        let Some(it) = state.controllers[who] else {
            return;
        };
        for kind in KINDS {
            if it.place[kind.index()] < state.newest(kind) {
                let mut next = *state;
                next.deliver(who, kind);
                self.emit(Action::Deliver { who, kind }, next, None, each);
            }
        }
        if it.todo.is_empty() {
            if it.queued {
                self.begin(state, who, it, each);
            }
            return;
        }
        for at in it.todo.sendable() {
            self.send(state, who, it, at, each);
        }
        if it.failed {
            let mut next = *state;
            let mut left = it;
            let first = it.todo.all()[0];
            left.todo
                .retain(|entry| (entry.part, entry.wave) != (first.part, first.wave));
            next.controllers[who] = Some(left);
            self.end_if_done(&mut next, who);
            self.emit(Action::Leave { who }, next, None, each);
        }
    }

    fn emit(
        &self,
        action: Action,
        mut state: State,
        broken: Option<Violation>,
        each: &mut impl FnMut(Next),
    ) {
        if self.mutant.shell.sleeps_after_restart && action == Action::Crash {
            state
                .controllers
                .iter_mut()
                .flatten()
                .for_each(|it| it.queued = false);
        }
        state.canonicalise(self.world);
        each(Next {
            action,
            state,
            broken,
        });
    }

    fn begin(
        &mut self,
        state: &State,
        who: usize,
        mut it: Controller,
        each: &mut impl FnMut(Next),
    ) {
        it.queued = false;
        it.timer = false;
        let mut broken = None;
        if let Some(view) = self.view(state, &it) {
            let version = state.sets.then(it.place[0]).map_or(0, |set| set.version);
            let verdict = self.verdict(&view);
            it.set = view.set.uid;
            it.todo = Todo::of(&verdict.entries);
            it.todo.set_version(version);
            it.again = verdict.again;
            it.timer = verdict.timer;
            broken = verdict.broken.clone();
        } else {
            it.wrote = [0; 4];
        }
        let mut next = *state;
        next.controllers[who] = Some(it);
        self.end_if_done(&mut next, who);
        self.emit(Action::Decide { who }, next, broken, each);
    }

    /// A round whose plan is empty is over.
    fn end_if_done(&self, state: &mut State, who: usize) {
        if let Some(it) = &mut state.controllers[who] {
            // What is left after a failure is the rest of its wave, then the closing.
            it.failed &= it
                .todo
                .all()
                .first()
                .is_some_and(|first| first.part != Part::Closing);
            if it.todo.is_empty() {
                it.queued |= it.again && !self.mutant.shell.gives_up;
                // A round that is repeated sets no timer.
                it.timer &= !it.again;
                it.again = false;
                it.set = 0;
            }
        }
    }

    fn send(
        &mut self,
        state: &State,
        who: usize,
        it: Controller,
        at: usize,
        each: &mut impl FnMut(Next),
    ) {
        let mut sent = it;
        let entry = sent.todo.take(at);
        let mut base = *state;
        base.controllers[who] = Some(sent);
        let op = entry.op;
        let mut next = base;
        let result = api::carry_out(
            &mut next,
            self.world,
            it.set,
            op,
            self.mutant.shell.careless,
        );
        let gone_already = matches!(op, Op::DeletePod { .. } | Op::DeleteRevision { .. });
        match result {
            Ok(done) => {
                let mut lost = next;
                note(&mut next, who, done.wrote);
                self.close(&mut next, who, None);
                let strayed = done.strayed.then(|| Violation {
                    rule: check::STRAYED,
                    what: Call(&op).to_string(),
                });
                let strayed = strayed.or_else(|| self.unfounded(state, op));
                self.emit(
                    Action::Send {
                        who,
                        op,
                        reply: Reply::Accepted,
                    },
                    next,
                    strayed.clone(),
                    each,
                );
                if lost.spend(Budget::LostReply) {
                    self.close(&mut lost, who, Some(entry));
                    self.emit(
                        Action::Send {
                            who,
                            op,
                            reply: Reply::Lost,
                        },
                        lost,
                        strayed,
                        each,
                    );
                }
            }
            Err(Refusal::NotFound) if gone_already => {
                self.close(&mut next, who, None);
                self.emit(
                    Action::Send {
                        who,
                        op,
                        reply: Reply::Accepted,
                    },
                    next,
                    None,
                    each,
                );
            }
            Err(refusal) => {
                let broken = self.needless(state, who, refusal).then(|| Violation {
                    rule: check::CONFLICTING,
                    what: Call(&op).to_string(),
                });
                self.close(&mut next, who, Some(entry));
                self.emit(
                    Action::Send {
                        who,
                        op,
                        reply: Reply::Rejected(refusal),
                    },
                    next,
                    broken,
                    each,
                );
            }
        }
        let mut refused = base;
        if refused.spend(Budget::Refusal) {
            self.close(&mut refused, who, Some(entry));
            self.emit(
                Action::Send {
                    who,
                    op,
                    reply: Reply::Refused,
                },
                refused,
                None,
                each,
            );
        }
    }

    /// A claim that was taken from a stranger; a pod that was made without what it stands on, in a world where nobody takes that away.
    fn unfounded(&self, state: &State, op: Op) -> Option<Violation> {
        let taken = |ordinal: u8| {
            let claim = state.claims.now()[usize::from(ordinal)];
            claim.is_some_and(|claim| claim.owner == Owner::Stranger)
        };
        if let Op::PatchClaim { ordinal, .. } = op
            && taken(ordinal)
        {
            return Some(Violation {
                rule: check::TAKEN,
                what: Call(&op).to_string(),
            });
        }
        let Op::CreatePod { ordinal, revision } = op else {
            return None;
        };
        let (world, what) = (self.world, || format!("web-{ordinal}"));
        let claims_stay = world.settings.claims
            && world.ever_deletes() == Retention::default()
            && world.claim_deletes == 0;
        if claims_stay && state.claims.now()[usize::from(ordinal)].is_none() {
            return Some(Violation {
                rule: check::UNCLAIMED,
                what: what(),
            });
        }
        let revisions_stay = world.failovers == 0 && world.delete.is_none();
        if revisions_stay && state.revisions.now()[usize::from(revision)].is_none() {
            return Some(Violation {
                rule: check::UNRECORDED,
                what: what(),
            });
        }
        None
    }

    /// A refused create that a controller without any trouble should have known of.
    fn needless(&self, state: &State, who: usize, refusal: Refusal) -> bool {
        let begun = self.world.budgets();
        let troubles = [
            Budget::Crash,
            Budget::LostReply,
            Budget::Failover,
            Budget::Recreate,
        ];
        let untroubled = troubles
            .iter()
            .all(|budget| state.left(*budget) == begun[budget.index()]);
        refusal == Refusal::AlreadyExists && untroubled && who == 0
    }

    /// What follows from a call's result; `failed` is the step that failed.
    fn close(&self, state: &mut State, who: usize, failed: Option<Entry>) {
        if let (Some(it), Some(entry)) = (&mut state.controllers[who], failed) {
            it.again = true;
            match entry.part {
                Part::Closing => {}
                Part::Prologue | Part::Stages => {
                    let shell = self.mutant.shell;
                    let ends_round = entry.part == Part::Prologue;
                    it.todo.retain(|other| {
                        let in_wave = is_same_wave(other, &entry)
                            && (other.lane != entry.lane || shell.ploughs_on);
                        let closes = other.part == Part::Closing && !ends_round;
                        let anyway = if ends_round {
                            shell.skips_prologue
                        } else {
                            shell.skips_stages
                        };
                        in_wave || closes || (anyway && !is_same_wave(other, &entry))
                    });
                    it.failed = true;
                }
            }
        }
        self.end_if_done(state, who);
    }
}

/// What a controller that is deaf while a round is under way makes of the events of that time.
fn forget_wakes(before: &State, next: &mut Next) {
    let failed = !matches!(
        next.action,
        Action::Send {
            reply: Reply::Accepted,
            ..
        }
    );
    for (before, after) in before.controllers.iter().zip(&mut next.state.controllers) {
        if let (Some(before), Some(after)) = (before, after)
            && !before.todo.is_empty()
            && next.action != Action::Crash
        {
            let repeated = after.todo.is_empty() && (before.again || failed);
            after.queued = before.queued || repeated;
        }
    }
}

fn is_same_wave(a: &Entry, b: &Entry) -> bool {
    (a.part, a.wave) == (b.part, b.wave)
}

/// The reply's resourceVersion is what the caches must show before the next round.
fn note(state: &mut State, who: usize, wrote: Option<(Kind, u8)>) {
    let (Some(it), Some((kind, place))) = (&mut state.controllers[who], wrote) else {
        return;
    };
    let at = kind.index();
    if place > it.place[at] {
        it.wrote[at] = it.wrote[at].max(place);
    }
}

fn broken_rule(view: &View, entries: &[Entry]) -> Option<Violation> {
    RULES.iter().find_map(|rule| {
        (rule.broken)(view, entries).map(|what| Violation {
            rule: rule.sentence,
            what,
        })
    })
}

fn silent(view: &View, entries: &[Entry], reasons: &[&str]) -> Option<Violation> {
    let says_nothing = check::is_idle(entries) && entries.is_empty() && reasons.is_empty();
    (says_nothing && !check::is_done(view)).then(|| Violation {
        rule: check::SILENT,
        what: "neither a step nor a blocker".to_owned(),
    })
}

type Each<'a> = dyn FnMut(Action, State, Option<Violation>) + 'a;

/// What goes wrong with controllers.
fn troubles(world: &World, state: &State, each: &mut Each<'_>) {
    let Some(it) = state.controllers[0] else {
        return;
    };
    let fresh = Controller {
        place: it.place,
        queued: true,
        ..Controller::default()
    };
    let has_something_to_lose = !it.todo.is_empty() || it.wrote != [0; 4] || it.timer;
    let mut crashed = *state;
    if has_something_to_lose && crashed.spend(Budget::Crash) {
        crashed.controllers[0] = Some(fresh);
        each(Action::Crash, crashed, None);
    }
    for kind in KINDS {
        let mut back = *state;
        if world.rewind > 0 && it.place[kind.index()] > 0 && back.spend(Budget::Crash) {
            let mut set_back = fresh;
            set_back.place[kind.index()] = 0;
            back.controllers[0] = Some(set_back);
            each(Action::CrashBack { kind }, back, None);
        }
    }
    let mut second = *state;
    match state.controllers[1] {
        None => {
            if second.spend(Budget::Failover) {
                second.controllers = [Some(fresh), Some(it)];
                each(Action::Failover, second, None);
            }
        }
        Some(_) => {
            second.controllers[1] = None;
            each(Action::StepDown, second, None);
        }
    }
}

fn with_pod(world: &World, state: &State, ordinal: usize, change: impl Fn(&mut Pods)) -> State {
    let mut next = *state;
    let mut pods = next.pods.now();
    change(&mut pods);
    debug_assert!(pods[ordinal] != next.pods.now()[ordinal]);
    next.put_pods(world, pods);
    next
}

fn with_life(world: &World, state: &State, ordinal: usize, life: Life) -> State {
    with_pod(world, state, ordinal, |pods| {
        if let Some(pod) = &mut pods[ordinal] {
            pod.life = life;
        }
    })
}

fn kubelet(world: &World, state: &State, ordinal: usize, each: &mut Each<'_>) {
    let Some(pod) = state.pods.now()[ordinal] else {
        return;
    };
    let mut failing = with_life_if(
        world,
        state,
        ordinal,
        Life::Failed,
        pod.life != Life::Failed,
    );
    if let Some(next) = &mut failing
        && next.spend(Budget::Fail)
    {
        each(Action::Fails { ordinal }, *next, None);
    }
    if pod.terminating {
        each(
            Action::Stops { ordinal },
            with_pod(world, state, ordinal, |pods| pods[ordinal] = None),
            None,
        );
        return;
    }
    let has_claim = !world.settings.claims
        || state.claims.now()[ordinal].is_some_and(|claim| !claim.terminating);
    let is_broken = world.broken.contains(&pod.revision);
    match pod.life {
        Life::Pending if has_claim => each(
            Action::Binds { ordinal },
            with_life(world, state, ordinal, Life::Bound),
            None,
        ),
        Life::Bound if has_claim && is_broken => each(
            Action::RunsInVain { ordinal },
            with_life(world, state, ordinal, Life::Running),
            None,
        ),
        Life::Bound | Life::Running if has_claim && !is_broken => {
            each(
                Action::BecomesReady { ordinal },
                with_life(world, state, ordinal, Life::Ready),
                None,
            );
        }
        Life::Ready if world.settings.min_ready => {
            let mut aged = *state;
            aged.age(ordinal, pod.uid);
            each(Action::Ages { ordinal }, aged, None);
        }
        Life::Pending | Life::Bound | Life::Running | Life::Ready | Life::Aged | Life::Failed => {}
    }
    if pod.is_ready() {
        let mut unready = with_life(world, state, ordinal, Life::Running);
        if unready.spend(Budget::Unready) {
            each(Action::BecomesUnready { ordinal }, unready, None);
        }
    }
}

fn with_life_if(
    world: &World,
    state: &State,
    ordinal: usize,
    life: Life,
    wanted: bool,
) -> Option<State> {
    (wanted && state.left(Budget::Fail) > 0).then(|| with_life(world, state, ordinal, life))
}

/// What others do to a pod and its claim.
fn interference(world: &World, state: &State, ordinal: usize, each: &mut Each<'_>) {
    if let Some(pod) = state.pods.now()[ordinal] {
        let mut next = *state;
        if !pod.terminating && next.spend(Budget::PodDelete) {
            api::stop_pod(&mut next, world, ordinal);
            each(Action::DeletePod { ordinal }, next, None);
        }
        let mut next = *state;
        if !pod.terminating && !pod.nameless && next.spend(Budget::Tamper) {
            let mut pods = next.pods.now();
            pods[ordinal] = Some(crate::object::Pod {
                nameless: true,
                ..pod
            });
            next.put_pods(world, pods);
            each(Action::Tamper { ordinal }, next, None);
        }
    }
    if let Some(claim) = state.claims.now()[ordinal] {
        let mut next = *state;
        if !claim.terminating && next.spend(Budget::ClaimDelete) {
            api::delete_claim(&mut next, world, ordinal);
            each(Action::DeleteClaim { ordinal }, next, None);
        }
        let owner = match claim.owner {
            Owner::Nobody => Some(Owner::Stranger),
            Owner::Stranger => Some(Owner::Nobody),
            Owner::Set(_) | Owner::Pod(_) => None,
        };
        let mut next = *state;
        if let Some(owner) = owner
            && next.spend(Budget::Stranger)
        {
            let mut claims = next.claims.now();
            claims[ordinal] = Some(crate::object::Claim {
                version: next.fresh(Id::ClaimVersion(ordinal)),
                owner,
                ..claim
            });
            next.put_claims(world, claims);
            each(Action::StrangersClaim { ordinal }, next, None);
        }
        let mut next = *state;
        if next.spend(Budget::Conflict) {
            let mut claims = next.claims.now();
            claims[ordinal] = Some(crate::object::Claim {
                version: next.fresh(Id::ClaimVersion(ordinal)),
                ..claim
            });
            next.put_claims(world, claims);
            each(Action::TouchClaim { ordinal }, next, None);
        }
    }
}

/// What the user does next with this budget, if anything is left of it.
fn upcoming<T: Copy>(state: &State, budget: Budget, list: &[T]) -> Option<T> {
    let left = usize::from(state.left(budget));
    list.len()
        .checked_sub(left)
        .and_then(|done| list.get(done))
        .copied()
}

fn user(world: &World, state: &State, each: &mut Each<'_>) {
    let Some(set) = state.sets.now() else {
        let mut next = *state;
        if next.spend(Budget::Recreate) {
            let again = Set {
                uid: 2,
                version: next.fresh(Id::SetVersion),
                generation: 1,
                replicas: world.replicas,
                partition: world.partition,
                template: 0,
                ..Set::default()
            };
            next.put_set(world, Some(again));
            each(Action::Recreate, next, None);
        }
        return;
    };
    let mut edit = |action, budget, change: &dyn Fn(&mut Set)| {
        let mut next = *state;
        if next.spend(budget) {
            let mut edited = Set {
                version: next.fresh(Id::SetVersion),
                ..set
            };
            change(&mut edited);
            next.put_set(world, Some(edited));
            each(action, next, None);
        }
    };
    if let Some(to) = upcoming(state, Budget::Template, world.templates) {
        edit(Action::Template { to }, Budget::Template, &|set| {
            (set.template, set.generation) = (to, set.generation + 1)
        });
    }
    if let Some(to) = upcoming(state, Budget::Scale, world.scales) {
        edit(Action::Scale { to }, Budget::Scale, &|set| {
            (set.replicas, set.generation) = (to, set.generation + 1)
        });
    }
    if let Some(to) = upcoming(state, Budget::Start, world.starts) {
        edit(Action::Start { to }, Budget::Start, &|set| {
            (set.start, set.generation) = (to, set.generation + 1)
        });
    }
    if let Some(to) = upcoming(state, Budget::Retention, world.retentions) {
        edit(Action::Retain { to }, Budget::Retention, &|set| {
            (set.retention, set.generation) = (Some(to), set.generation + 1)
        });
    }
    edit(Action::TouchSet, Budget::Conflict, &|_| {});
    let Some(how) = world.delete.filter(|_| set.deleting == Deleting::No) else {
        return;
    };
    match how {
        Propagation::Background => {
            let mut next = *state;
            if next.spend(Budget::Delete) {
                next.put_set(world, None);
                each(Action::DeleteSet { how }, next, None);
            }
        }
        Propagation::Foreground => edit(Action::DeleteSet { how }, Budget::Delete, &|set| {
            (set.deleting, set.generation) = (Deleting::Foreground, set.generation + 1);
        }),
        Propagation::Orphan => edit(Action::DeleteSet { how }, Budget::Delete, &|set| {
            (set.deleting, set.generation) = (Deleting::Orphan, set.generation + 1);
        }),
    }
}

/// What the garbage collector makes of an owner.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
    LetGo,
}

fn fate(state: &State, owner: Owner, ordinal: usize) -> Fate {
    match owner {
        Owner::Nobody | Owner::Stranger => Fate::Stays,
        Owner::Set(uid) => match state.sets.now() {
            Some(set) if set.uid == uid => match set.deleting {
                Deleting::No => Fate::Stays,
                Deleting::Foreground => Fate::Goes,
                Deleting::Orphan => Fate::LetGo,
            },
            Some(_) | None => Fate::Goes,
        },
        Owner::Pod(uid) => match state.pods.now()[ordinal] {
            Some(pod) if pod.uid == uid => Fate::Stays,
            Some(_) | None => Fate::Goes,
        },
    }
}

fn collector(world: &World, state: &State, each: &mut Each<'_>) {
    for ordinal in 0..ORDINALS {
        collect_pod(world, state, ordinal, each);
        collect_claim(world, state, ordinal, each);
    }
    for (template, revision) in state.revisions.now().iter().enumerate() {
        let Some(revision) = revision else { continue };
        let mut revisions: Revisions = state.revisions.now();
        let mut next = *state;
        match fate(state, revision.owner, 0) {
            Fate::Stays => {}
            Fate::Goes => {
                revisions[template] = None;
                next.put_revisions(world, revisions);
                each(Action::CollectRevision { template }, next, None);
            }
            Fate::LetGo => {
                revisions[template] = Some(crate::object::Revision {
                    owner: Owner::Nobody,
                    ..*revision
                });
                next.put_revisions(world, revisions);
                each(Action::LetRevisionGo { template }, next, None);
            }
        }
    }
    if let Some(set) = state.sets.now()
        && set.deleting != Deleting::No
        && !has_dependents(state, set.uid)
    {
        let mut next = *state;
        next.put_set(world, None);
        each(Action::SetGoes, next, None);
    }
}

fn has_dependents(state: &State, uid: u8) -> bool {
    let ours = Owner::Set(uid);
    let claims: Claims = state.claims.now();
    state
        .pods
        .now()
        .iter()
        .flatten()
        .any(|pod| pod.owner == ours)
        || claims.iter().flatten().any(|claim| claim.owner == ours)
        || state
            .revisions
            .now()
            .iter()
            .flatten()
            .any(|revision| revision.owner == ours)
}

fn collect_pod(world: &World, state: &State, ordinal: usize, each: &mut Each<'_>) {
    let Some(pod) = state.pods.now()[ordinal] else {
        return;
    };
    match fate(state, pod.owner, ordinal) {
        Fate::Goes if !pod.terminating => {
            let mut next = *state;
            api::stop_pod(&mut next, world, ordinal);
            each(Action::CollectPod { ordinal }, next, None);
        }
        Fate::LetGo => {
            let next = with_pod(world, state, ordinal, |pods| {
                if let Some(pod) = &mut pods[ordinal] {
                    pod.owner = Owner::Nobody;
                }
            });
            each(Action::LetPodGo { ordinal }, next, None);
        }
        Fate::Goes | Fate::Stays => {}
    }
}

fn collect_claim(world: &World, state: &State, ordinal: usize, each: &mut Each<'_>) {
    let Some(claim) = state.claims.now()[ordinal] else {
        return;
    };
    let mut next = *state;
    if claim.terminating {
        if !api::is_claim_in_use(state, ordinal) {
            let mut claims = next.claims.now();
            claims[ordinal] = None;
            next.put_claims(world, claims);
            each(Action::ClaimGoes { ordinal }, next, None);
        }
        return;
    }
    match fate(state, claim.owner, ordinal) {
        Fate::Stays => {}
        Fate::Goes => {
            let allowed = match claim.owner {
                Owner::Set(_) => world.ever_deletes().delete_with_set,
                Owner::Pod(_) => world.ever_deletes().delete_with_pod,
                Owner::Nobody | Owner::Stranger => false,
            };
            let broken = (!allowed).then(|| Violation {
                rule: check::COLLECTED,
                what: format!("the claim of web-{ordinal} goes with its {:?}", claim.owner),
            });
            api::delete_claim(&mut next, world, ordinal);
            each(Action::CollectClaim { ordinal }, next, broken);
        }
        Fate::LetGo => {
            let mut claims = next.claims.now();
            claims[ordinal] = Some(crate::object::Claim {
                owner: Owner::Nobody,
                version: next.fresh(Id::ClaimVersion(ordinal)),
                ..claim
            });
            next.put_claims(world, claims);
            each(Action::LetClaimGo { ordinal }, next, None);
        }
    }
}

/// As a line of a scenario: what its language has no word for is a comment.
impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = |who: &usize| {
            if *who == 0 {
                "the controller"
            } else {
                "the second controller"
            }
        };
        match self {
            Action::Decide { who: 0 } => out.write_str("decide"),
            Action::Decide { .. } => out.write_str("decide # the second controller"),
            Action::Send { who, op, reply } => write!(out, "# {} sends {}: {reply}", whose(who), Call(op)),
            Action::Leave { who } => write!(out, "# {} leaves the rest of the wave", whose(who)),
            Action::Deliver { who, kind } => write!(out, "# {} hears of {}", whose(who), kind.word()),
            Action::Crash => out.write_str("# the controller crashes and starts again"),
            Action::CrashBack { kind } => write!(
                out,
                "# the controller crashes, starts again and lists {} from a server that is behind",
                kind.word()
            ),
            Action::Failover => out.write_str("# the controller loses its lease without knowing, as the second controller; another takes over"),
            Action::StepDown => out.write_str("# the second controller learns that it lost its lease, and stops"),
            Action::Binds { ordinal } => write!(out, "# web-{ordinal} is bound to a node"),
            Action::RunsInVain { ordinal } => write!(out, "pod web-{ordinal} running # it will never be ready"),
            Action::BecomesReady { ordinal } => write!(out, "pod web-{ordinal} ready"),
            Action::Ages { ordinal } => write!(out, "clock +30s # web-{ordinal} has been ready for minReadySeconds"),
            Action::Fails { ordinal } => write!(out, "pod web-{ordinal} failed"),
            Action::BecomesUnready { ordinal } => write!(out, "pod web-{ordinal} running # it is ready no more"),
            Action::Stops { ordinal } => write!(out, "gone web-{ordinal} # it has stopped"),
            Action::Template { to } => write!(out, "set web template={} # the user", letter(*to)),
            Action::Scale { to } => write!(out, "set web replicas={to} # the user"),
            Action::Start { to } => write!(out, "set web start={to} # the user"),
            Action::Retain { to } => {
                let word = |delete: bool| if delete { "Delete" } else { "Retain" };
                write!(out, "set web whenScaled={} whenDeleted={} # the user", word(to.delete_with_pod), word(to.delete_with_set))
            }
            Action::StrangersClaim { ordinal } => write!(out, "claim data-web-{ordinal} owner=Keeper/k # or its keeper lets it go"),
            Action::DeleteSet { how: Propagation::Background } => out.write_str("gone web # the user deletes the set"),
            Action::DeleteSet { how } => write!(out, "set web deleting # the user, {how:?}"),
            Action::Recreate => out.write_str("set web # the user makes the set again"),
            Action::DeletePod { ordinal } => write!(out, "pod web-{ordinal} terminating # the user deletes it"),
            Action::DeleteClaim { ordinal } => write!(out, "claim data-web-{ordinal} terminating # the user deletes it"),
            Action::Tamper { ordinal } => write!(out, "pod web-{ordinal} unlabelled # somebody takes its name label away"),
            Action::TouchSet => out.write_str("# somebody else writes the set"),
            Action::TouchClaim { ordinal } => write!(out, "# somebody else writes data-web-{ordinal}"),
            Action::CollectPod { ordinal } => write!(out, "pod web-{ordinal} terminating # the garbage collector"),
            Action::CollectClaim { ordinal } => write!(out, "claim data-web-{ordinal} terminating # the garbage collector"),
            Action::CollectRevision { template } => write!(out, "gone {} # the garbage collector", letter(*template as u8)),
            Action::LetPodGo { ordinal } => write!(out, "pod web-{ordinal} owner=none # the garbage collector orphans it"),
            Action::LetClaimGo { ordinal } => write!(out, "claim data-web-{ordinal} owner=none # the garbage collector orphans it"),
            Action::LetRevisionGo { template } => write!(out, "revision {} owner=none # the garbage collector orphans it", letter(*template as u8)),
            Action::ClaimGoes { ordinal } => write!(out, "gone data-web-{ordinal}"),
            Action::SetGoes => out.write_str("gone web"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Reply::Accepted => "done",
            Reply::Rejected(Refusal::NotFound) => "404 NotFound",
            Reply::Rejected(Refusal::AlreadyExists) => "409 AlreadyExists",
            Reply::Rejected(Refusal::Conflict) => "409 Conflict",
            Reply::Rejected(Refusal::Invalid) => "422 Invalid",
            Reply::Lost => "done, but the reply is lost",
            Reply::Refused => "refused (403, 422, 429 or 500)",
        })
    }
}

/// A call in a text.
struct Call<'a>(&'a Op);

impl fmt::Display for Call<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            Op::CheckSet => out.write_str("get set"),
            Op::AdoptRevision { template, .. } => {
                write!(out, "adopt revision {}", letter(template))
            }
            Op::AdoptPod { ordinal, .. } => write!(out, "adopt pod web-{ordinal}"),
            Op::ReleasePod { ordinal, .. } => write!(out, "release pod web-{ordinal}"),
            Op::CreateRevision { template, number } => write!(
                out,
                "create revision {} as number {number}",
                letter(template)
            ),
            Op::RenumberRevision {
                template, number, ..
            } => write!(out, "renumber revision {} to {number}", letter(template)),
            Op::DeleteRevision { template, .. } => {
                write!(out, "delete revision {}", letter(template))
            }
            Op::CreateClaim { ordinal } => write!(out, "create claim data-web-{ordinal}"),
            Op::PatchClaim { ordinal, owner, .. } => write!(
                out,
                "patch claim data-web-{ordinal} to be owned by {}",
                Whose(owner, ordinal)
            ),
            Op::CreatePod { ordinal, revision } => write!(
                out,
                "create pod web-{ordinal} at revision {}",
                letter(revision)
            ),
            Op::UpdatePod { ordinal, .. } => write!(out, "update pod web-{ordinal}"),
            Op::DeletePod { ordinal, .. } => write!(out, "delete pod web-{ordinal}"),
            Op::WriteStatus { status, .. } => write!(out, "write status {}", Counts(status)),
        }
    }
}

struct Whose(Owner, u8);

impl fmt::Display for Whose {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(owner, ordinal) = self;
        match owner {
            Owner::Nobody => out.write_str("nobody"),
            Owner::Set(_) => out.write_str("StatefulSet web"),
            Owner::Pod(_) => write!(out, "Pod web-{ordinal}"),
            Owner::Stranger => out.write_str("ConfigMap other"),
        }
    }
}

struct Counts(Status);

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status {
            observed,
            replicas,
            ready,
            available,
            current,
            updated,
            current_revision,
            update_revision,
        } = self.0;
        let name = |revision: Option<u8>| revision.map_or('-', letter);
        write!(
            out,
            "observed={observed} replicas={replicas} ready={ready} available={available} current={current}@{} updated={updated}@{}",
            name(current_revision),
            name(update_revision)
        )
    }
}
