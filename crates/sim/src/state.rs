//! One state of a world: the API's objects with what the watches have yet to tell, the controllers, and what is left of the budgets.

use crate::object::{
    Claims, IDS, Id, KINDS, Kind, Life, Mentions, ORDINALS, Pods, Revisions, Set, TEMPLATES,
};
use crate::op::Todo;
use crate::pass::{Pass, Reader, Writer};
use crate::world::{BUDGETS, Budget, World};

/// Versions of one kind's objects that a stream can hold: the API's, two that a cache may be behind, one in passing.
const DEEP: usize = 4;

/// All objects of one kind, at every moment from the oldest that a cache still shows to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream<T> {
    len: u8,
    at: [T; DEEP],
}

impl<T: Copy + Default> Stream<T> {
    fn new(first: T) -> Stream<T> {
        let mut stream = Stream {
            len: 1,
            at: [T::default(); DEEP],
        };
        stream.at[0] = first;
        stream
    }

    /// As the API has them.
    pub(crate) fn now(&self) -> T {
        self.at[self.last()]
    }

    /// As they were at this place.
    pub(crate) fn then(&self, place: u8) -> T {
        self.at[usize::from(place)]
    }

    /// The place of now.
    fn last(&self) -> usize {
        usize::from(self.len) - 1
    }

    fn push(&mut self, next: T) {
        self.at[usize::from(self.len)] = next;
        self.len += 1;
    }

    fn forget(&mut self, oldest: u8) {
        let oldest = usize::from(oldest);
        self.at.copy_within(oldest.., 0);
        self.len -= u8::try_from(oldest).expect("shorter than the stream");
        for unused in &mut self.at[usize::from(self.len)..] {
            *unused = T::default();
        }
    }

    fn pass<P: Pass>(&mut self, pass: &mut P, mut one: impl FnMut(&mut T, &mut P)) {
        pass.bits(&mut self.len, 3);
        for each in &mut self.at[..usize::from(self.len)] {
            one(each, pass);
        }
    }
}

/// A running controller: how far its caches are, what it remembers of its own writes, what it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controller {
    /// For each kind, the place in its stream that the cache shows.
    pub(crate) place: [u8; 4],
    /// For each kind, the place of the newest write of its own that the cache does not show yet; 0 for none.
    pub(crate) wrote: [u8; 4],
    /// The set is queued for a round.
    pub(crate) queued: bool,
    /// A timer will queue it.
    pub(crate) timer: bool,
    /// The round under way will be repeated.
    pub(crate) again: bool,
    /// A step of the wave under way failed.
    pub(crate) failed: bool,
    /// UID of the set that the round under way is about.
    pub(crate) set: u8,
    /// What it still has to send.
    pub(crate) todo: Todo,
}

/// A state of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) sets: Stream<Option<Set>>,
    pub(crate) pods: Stream<Pods>,
    pub(crate) claims: Stream<Claims>,
    pub(crate) revisions: Stream<Revisions>,
    /// The controller, and one that lost its lease and does not know it.
    pub(crate) controllers: [Option<Controller>; 2],
    pub(crate) left: [u8; BUDGETS],
}

impl State {
    /// A set that was just made, and a controller that has yet to look at it.
    pub(crate) fn new(world: &World) -> State {
        let set = Set {
            uid: 1,
            generation: 1,
            replicas: world.replicas,
            partition: world.partition,
            ..Set::default()
        };
        State {
            sets: Stream::new(Some(set)),
            pods: Stream::new([None; ORDINALS]),
            claims: Stream::new([None; ORDINALS]),
            revisions: Stream::new([None; TEMPLATES]),
            controllers: [
                Some(Controller {
                    queued: true,
                    ..Controller::default()
                }),
                None,
            ],
            left: world.budgets(),
        }
    }

    /// Takes one off a budget; false where nothing is left.
    #[must_use]
    pub(crate) fn spend(&mut self, budget: Budget) -> bool {
        let left = &mut self.left[budget.index()];
        let enough = *left > 0;
        *left = left.saturating_sub(1);
        enough
    }

    pub(crate) fn left(&self, budget: Budget) -> u8 {
        self.left[budget.index()]
    }

    pub(crate) fn put_set(&mut self, world: &World, set: Option<Set>) {
        self.sets.push(set);
        self.settle(world, Kind::Sets);
    }

    pub(crate) fn put_pods(&mut self, world: &World, pods: Pods) {
        self.pods.push(pods);
        self.settle(world, Kind::Pods);
    }

    pub(crate) fn put_claims(&mut self, world: &World, claims: Claims) {
        self.claims.push(claims);
        self.settle(world, Kind::Claims);
    }

    pub(crate) fn put_revisions(&mut self, world: &World, revisions: Revisions) {
        self.revisions.push(revisions);
        self.settle(world, Kind::Revisions);
    }

    /// The place of the API's own objects in a kind's stream.
    pub(crate) fn newest(&self, kind: Kind) -> u8 {
        let len = match kind {
            Kind::Sets => self.sets.len,
            Kind::Pods => self.pods.len,
            Kind::Claims => self.claims.len,
            Kind::Revisions => self.revisions.len,
        };
        len - 1
    }

    /// A watch tells a controller its next event.
    pub(crate) fn deliver(&mut self, controller: usize, kind: Kind) {
        let wakes = |state: &State, place: u8| state.wakes(kind, place);
        let Some(mut it) = self.controllers[controller] else {
            return;
        };
        let at = kind.index();
        it.queued |= wakes(self, it.place[at]);
        it.place[at] += 1;
        if it.wrote[at] <= it.place[at] {
            it.wrote[at] = 0;
        }
        self.controllers[controller] = Some(it);
    }

    /// Time passes for a pod: every cache sees it, no watch tells it; only timers do.
    pub(crate) fn age(&mut self, ordinal: usize, uid: u8) {
        for pods in &mut self.pods.at[..usize::from(self.pods.len)] {
            if let Some(pod) = pods[ordinal]
                .as_mut()
                .filter(|pod| pod.uid == uid && pod.life == Life::Ready)
            {
                pod.life = Life::Aged;
            }
        }
        for it in self.controllers.iter_mut().flatten() {
            it.queued |= it.timer;
            it.timer = false;
        }
    }

    /// The event after this place is one that queues the set. upstream of ours: `Related::differs` in the controller.
    fn wakes(&self, kind: Kind, place: u8) -> bool {
        let next = place + 1;
        match kind {
            Kind::Sets => true,
            Kind::Pods => self.pods.then(place) != self.pods.then(next),
            Kind::Revisions => self.revisions.then(place) != self.revisions.then(next),
            Kind::Claims => {
                let read = |claims: Claims| {
                    claims
                        .map(|claim| claim.map(|claim| (claim.uid, claim.terminating, claim.owner)))
                };
                read(self.claims.then(place)) != read(self.claims.then(next))
            }
        }
    }

    /// Delivers what no cache may be behind any longer, and forgets what no cache shows any longer.
    fn settle(&mut self, world: &World, kind: Kind) {
        let at = kind.index();
        for controller in 0..self.controllers.len() {
            while self.controllers[controller]
                .is_some_and(|it| self.newest(kind) - it.place[at] > world.lag[at])
            {
                self.deliver(controller, kind);
            }
        }
        self.trim(world, kind);
    }

    /// Forgets what no cache shows any longer, nor could after a restart.
    fn trim(&mut self, world: &World, kind: Kind) {
        let at = kind.index();
        let oldest = self
            .controllers
            .iter()
            .flatten()
            .map(|it| it.place[at])
            .min();
        let can_rewind = self.left(Budget::Crash) > 0;
        let kept = if can_rewind { world.rewind } else { 0 };
        let oldest = oldest.unwrap_or(self.newest(kind)).saturating_sub(kept);
        if oldest == 0 {
            return;
        }
        match kind {
            Kind::Sets => self.sets.forget(oldest),
            Kind::Pods => self.pods.forget(oldest),
            Kind::Claims => self.claims.forget(oldest),
            Kind::Revisions => self.revisions.forget(oldest),
        }
        for it in self.controllers.iter_mut().flatten() {
            it.place[at] -= oldest;
            it.wrote[at] = it.wrote[at].saturating_sub(oldest);
        }
    }

    /// An identity that no object, cache or plan mentions.
    pub(crate) fn fresh(&self, wanted: Id) -> u8 {
        let mut next = 0;
        let mut copy = *self;
        copy.ids(&mut |id, value| {
            if id == wanted {
                next = next.max(*value + 1);
            }
        });
        next
    }

    /// Renumbers identities by age and plans by what is left of them: states that differ in nothing else are one.
    pub(crate) fn canonicalise(&mut self, world: &World) {
        for kind in KINDS {
            self.trim(world, kind);
        }
        for it in self.controllers.iter_mut().flatten() {
            it.todo.renumber();
            if it.todo.is_empty() {
                it.set = 0;
            }
        }
        let mut used = [0_u16; IDS];
        self.ids(&mut |id, value| used[id.index()] |= 1 << *value);
        if used.iter().all(|used| used & (used + 1) == 0) {
            return;
        }
        self.ids(&mut |id, value| {
            let older = used[id.index()] & ((1 << *value) - 1);
            *value = u8::try_from(older.count_ones()).expect("at most sixteen");
        });
    }

    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8)) {
        let len = |len: u8| ..usize::from(len);
        self.sets.at[len(self.sets.len)]
            .iter_mut()
            .for_each(|set| set.ids(each));
        self.pods.at[len(self.pods.len)]
            .iter_mut()
            .for_each(|pods| pods.ids(each));
        self.claims.at[len(self.claims.len)]
            .iter_mut()
            .for_each(|claims| claims.ids(each));
        self.revisions.at[len(self.revisions.len)]
            .iter_mut()
            .for_each(|revisions| revisions.ids(each));
        self.controllers
            .iter_mut()
            .flatten()
            .for_each(|it| it.todo.ids(each));
    }

    /// Appends the state to `words`.
    pub(crate) fn encode(mut self, words: &mut Vec<u64>) {
        let mut writer = Writer::new(words);
        self.pass(&mut writer);
        writer.finish();
    }

    /// The state that these words are.
    pub(crate) fn decode(words: &[u64]) -> State {
        let mut state = State {
            sets: Stream::default(),
            pods: Stream::default(),
            claims: Stream::default(),
            revisions: Stream::default(),
            controllers: [None; 2],
            left: [0; BUDGETS],
        };
        state.pass(&mut Reader::new(words));
        state
    }

    fn pass(&mut self, pass: &mut impl Pass) {
        for left in &mut self.left {
            pass.bits(left, 3);
        }
        for controller in &mut self.controllers {
            pass.option(controller, |it, pass| it.pass(pass));
        }
        self.sets.pass(pass, |set, pass| {
            pass.option(set, |set, pass| set.pass(pass))
        });
        self.pods.pass(pass, |pods, pass| {
            pods.iter_mut()
                .for_each(|pod| pass.option(pod, |pod, pass| pod.pass(pass)))
        });
        self.claims.pass(pass, |claims, pass| {
            claims
                .iter_mut()
                .for_each(|claim| pass.option(claim, |claim, pass| claim.pass(pass)))
        });
        self.revisions.pass(pass, |revisions, pass| {
            revisions
                .iter_mut()
                .for_each(|revision| pass.option(revision, |revision, pass| revision.pass(pass)));
        });
    }
}

impl Controller {
    fn pass(&mut self, pass: &mut impl Pass) {
        for place in self.place.iter_mut().chain(&mut self.wrote) {
            pass.bits(place, 2);
        }
        for flag in [
            &mut self.queued,
            &mut self.timer,
            &mut self.again,
            &mut self.failed,
        ] {
            pass.flag(flag);
        }
        pass.bits(&mut self.set, 2);
        self.todo.pass(pass);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::matrix;
    use crate::object::{Claim, Owner, Pod};
    use crate::op::{Entry, Op, Part};

    fn world() -> World {
        matrix()
            .into_iter()
            .find(|world| world.name == "stale-claims")
            .unwrap()
    }

    fn busy(world: &World, uid: u8) -> State {
        let mut state = State::new(world);
        let mut pods = state.pods.now();
        pods[1] = Some(Pod {
            uid,
            owner: Owner::Set(1),
            ..Pod::default()
        });
        state.put_pods(world, pods);
        let mut claims = state.claims.now();
        claims[1] = Some(Claim {
            uid,
            version: uid,
            owner: Owner::Pod(uid),
            ..Claim::default()
        });
        state.put_claims(world, claims);
        let delete = Entry {
            part: Part::Stages,
            wave: uid,
            lane: 0,
            op: Op::DeletePod { ordinal: 1, uid },
        };
        let it = Controller {
            set: 1,
            todo: Todo::of(&[delete]),
            ..state.controllers[0].unwrap()
        };
        state.controllers[0] = Some(it);
        state
    }

    #[test]
    fn a_state_is_read_back_as_it_was_written() {
        let mut state = busy(&world(), 3);
        state.controllers[1] = state.controllers[0];
        let mut words = Vec::new();
        state.encode(&mut words);
        assert_eq!(State::decode(&words), state);
    }

    #[test]
    fn states_that_differ_in_names_alone_are_one() {
        let (mut one, mut other) = (busy(&world(), 2), busy(&world(), 7));
        assert_ne!(one, other);
        one.canonicalise(&world());
        other.canonicalise(&world());
        assert_eq!(one, other);
    }

    #[test]
    fn a_cache_falls_behind_as_far_as_its_world_allows() {
        let world = world();
        let mut state = State::new(&world);
        let place = |state: &State| state.controllers[0].unwrap().place[Kind::Pods.index()];
        for uid in 0..3 {
            let mut pods = state.pods.now();
            pods[0] = Some(Pod {
                uid,
                ..Pod::default()
            });
            state.put_pods(&world, pods);
            assert_eq!(state.newest(Kind::Pods) - place(&state), 1);
        }
        assert_eq!(state.pods.then(place(&state))[0].unwrap().uid, 1);
        state.deliver(0, Kind::Pods);
        assert_eq!(state.newest(Kind::Pods), place(&state));
    }
}
