//! Every state of a world, breadth first, with nothing left out; then the way home from each of them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use crate::act::{Action, Next, Stage};
use crate::check::{RESTLESS, UNLISTED, Violation, broken_at_rest};
use crate::mutant::Mutant;
use crate::pass::fingerprint;
use crate::rest::{self, GONE};
use crate::state::State;
use crate::world::World;

/// What came of a world.
pub struct Report {
    /// The world's name.
    pub name: &'static str,
    /// Distinct states. All of them, unless there is a failure.
    pub states: usize,
    /// Transitions between them.
    pub edges: usize,
    /// Steps from the beginning to the farthest state.
    pub depth: usize,
    /// Distinct views that were decided by the shipped code.
    pub views: usize,
    /// How many states of each way to rest there are.
    pub rests: BTreeMap<&'static str, usize>,
    /// How long it took.
    pub took: Duration,
    /// What does not hold, with the shortest way there.
    pub failure: Option<Failure>,
}

/// A rule that does not hold, and the shortest way to where it does not.
pub struct Failure {
    /// What does not hold.
    pub violation: Violation,
    /// The way there, a line an action.
    pub trace: Vec<String>,
}

/// A hasher for what is a fingerprint already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// No state: the parent of the first.
const NONE: u32 = u32::MAX;

/// The search of one world.
struct Search<'a> {
    stage: Stage<'a>,
    /// Number of each state by its fingerprint, in the order they were found.
    known: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    parents: Vec<u32>,
    /// States without a fault: where the transitions of state `n` end in `calm`.
    calm_ends: Vec<u64>,
    /// Transitions that are no faults, by state.
    calm: Vec<u32>,
    /// States that have come to rest.
    resting: Vec<u32>,
    rests: BTreeMap<&'static str, usize>,
    edges: usize,
}

/// States of one distance from the beginning.
#[derive(Default)]
struct Layer {
    words: Vec<u64>,
    ends: Vec<usize>,
}

impl Layer {
    fn push(&mut self, state: &[u64]) {
        self.words.extend_from_slice(state);
        self.ends.push(self.words.len());
    }

    fn states(&self) -> impl Iterator<Item = State> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| State::decode(&self.words[start..*end]))
    }
}

/// Explores the world with the shipped code, as the mutant spoils it.
pub fn explore(world: &World, mutant: &Mutant) -> Report {
    let begun = Instant::now();
    let mut search = Search {
        stage: Stage::new(world, mutant),
        known: HashMap::default(),
        parents: Vec::new(),
        calm_ends: Vec::new(),
        calm: Vec::new(),
        resting: Vec::new(),
        rests: BTreeMap::new(),
        edges: 0,
    };
    let (depth, failure) = search.run();
    Report {
        name: world.name,
        states: search.parents.len(),
        edges: search.edges,
        depth,
        views: search.stage.decided(),
        rests: search.rests,
        took: begun.elapsed(),
        failure,
    }
}

impl Search<'_> {
    fn run(&mut self) -> (usize, Option<Failure>) {
        let mut words = Vec::new();
        let mut layer = Layer::default();
        let first = self.first();
        self.number(&first, NONE, &mut words);
        layer.push(&words);
        let mut number = 0;
        let mut depth = 0;
        loop {
            let mut next_layer = Layer::default();
            for state in layer.states() {
                if let Some(violation) = self.expand(&state, number, &mut next_layer, &mut words) {
                    return (depth, Some(self.failure(number, violation)));
                }
                number += 1;
            }
            if next_layer.ends.is_empty() {
                break;
            }
            layer = next_layer;
            depth += 1;
        }
        let lost = self.without_way_home();
        let failure = lost.map(|state| {
            let violation = Violation {
                rule: RESTLESS,
                what: "from here on it never does".to_owned(),
            };
            self.failure(state, (violation, None))
        });
        (depth, failure)
    }

    /// The state in which the world begins.
    fn first(&mut self) -> State {
        let mut state = State::new(self.stage.world);
        state.canonicalise(self.stage.world);
        if !self.stage.world.settled {
            return state;
        }
        loop {
            let mut calm = None;
            self.stage.each_next(&state, &mut |next| {
                if calm.is_none() && !next.action.is_fault() && next.state != state {
                    calm = Some(next.state);
                }
            });
            let Some(next) = calm else { return state };
            state = next;
        }
    }

    /// The state's number, and whether it is new. Leaves its words in `words`.
    fn number(&mut self, state: &State, parent: u32, words: &mut Vec<u64>) -> (u32, bool) {
        words.clear();
        state.encode(words);
        let next = u32::try_from(self.parents.len()).expect("fewer states than memory");
        let number = *self.known.entry(fingerprint(words)).or_insert(next);
        if number == next {
            self.parents.push(parent);
        }
        (number, number == next)
    }

    /// Finds all that can happen next in a state; what breaks a rule ends the search.
    fn expand(
        &mut self,
        state: &State,
        number: u32,
        layer: &mut Layer,
        words: &mut Vec<u64>,
    ) -> Option<(Violation, Option<Action>)> {
        let mut found: Vec<Next> = Vec::with_capacity(16);
        self.stage.each_next(state, &mut |next| found.push(next));
        let mut moves = false;
        for next in found {
            if let Some(violation) = next.broken {
                return Some((violation, Some(next.action)));
            }
            if next.state == *state {
                continue;
            }
            let (to, is_new) = self.number(&next.state, number, words);
            self.edges += 1;
            if is_new {
                layer.push(words);
            }
            if !next.action.is_fault() {
                moves = true;
                self.calm.push(to);
            }
        }
        self.calm_ends.push(self.calm.len() as u64);
        if moves {
            None
        } else {
            self.rest(state, number).map(|violation| (violation, None))
        }
    }

    /// A state in which nothing but faults can happen.
    fn rest(&mut self, state: &State, number: u32) -> Option<Violation> {
        self.resting.push(number);
        let it = state.controllers[0]?;
        let Some(view) = self.stage.view(state, &it) else {
            *self.rests.entry(GONE.name).or_default() += 1;
            return None;
        };
        let world = self.stage.world;
        if let Some(violation) = broken_at_rest(world, &view, &state.claims.now()) {
            return Some(violation);
        }
        let reasons = self.stage.verdict(&view).reasons.clone();
        let Some(rest) = rest::of(world, &view, &reasons) else {
            return Some(Violation {
                rule: UNLISTED,
                what: format!("blocked by {reasons:?}"),
            });
        };
        *self.rests.entry(rest.name).or_default() += 1;
        None
    }

    /// The first state from which, without faults, no rest can be reached.
    fn without_way_home(&self) -> Option<u32> {
        let mut home = vec![false; self.parents.len()];
        for &resting in &self.resting {
            home[resting as usize] = true;
        }
        loop {
            let mut grown = false;
            for state in (0..home.len()).rev() {
                if home[state] {
                    continue;
                }
                let start = if state == 0 {
                    0
                } else {
                    self.calm_ends[state - 1] as usize
                };
                let reached = &self.calm[start..self.calm_ends[state] as usize];
                if reached.iter().any(|&to| home[to as usize]) {
                    home[state] = true;
                    grown = true;
                }
            }
            if !grown {
                return home.iter().position(|home| !home).map(|state| state as u32);
            }
        }
    }

    /// The way to a state, replayed, with what its last controller sees there.
    fn failure(&mut self, state: u32, (violation, last): (Violation, Option<Action>)) -> Failure {
        let mut way = vec![state];
        while let Some(&parent) = way
            .last()
            .map(|&state| &self.parents[state as usize])
            .filter(|&&parent| parent != NONE)
        {
            way.push(parent);
        }
        let mut state = self.first();
        let mut trace = self.stage.world.opening();
        let mut words = Vec::new();
        for &number in way.iter().rev().skip(1) {
            let mut taken = None;
            let mut found = Vec::new();
            self.stage.each_next(&state, &mut |next| found.push(next));
            for next in found {
                words.clear();
                next.state.encode(&mut words);
                if taken.is_none() && self.known.get(&fingerprint(&words)) == Some(&number) {
                    taken = Some(next);
                }
            }
            let next = taken.expect("the way that was found can be gone again");
            self.tell(&state, next.action, &mut trace);
            state = next.state;
        }
        match last {
            Some(action) => self.tell(&state, action, &mut trace),
            None => self.tell(&state, Action::Decide { who: 0 }, &mut trace),
        }
        Failure { violation, trace }
    }

    /// A line an action; under a decision, what was decided.
    fn tell(&mut self, state: &State, action: Action, trace: &mut Vec<String>) {
        trace.push(action.to_string());
        if let Action::Decide { who } = action
            && let Some(it) = state.controllers[who]
            && let Some(view) = self.stage.view(state, &it)
        {
            trace.push("----".to_owned());
            trace.extend(self.stage.lines(&view));
            trace.push(String::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::matrix::{large, matrix};
    use crate::mutant::{MUTANTS, SHIPPED, hunt};

    use super::*;

    #[test]
    fn small_worlds_come_home_from_every_state() {
        let small = [
            "ordered-create",
            "ordered-partition",
            "refusals-roll",
            "lost-replies-claims",
        ];
        for world in matrix().iter().filter(|world| small.contains(&world.name)) {
            let report = explore(world, &SHIPPED);
            let failure = report
                .failure
                .map(|failure| (failure.violation, failure.trace));
            assert_eq!(failure, None, "{}", world.name);
            assert!(
                report.states > 50 && report.rests.contains_key("converged"),
                "{}",
                world.name
            );
        }
    }

    #[test]
    fn the_same_world_has_the_same_states_every_time() {
        let count = || {
            matrix()
                .iter()
                .filter(|world| world.name == "ordered-rollback")
                .map(|world| explore(world, &SHIPPED))
                .map(|report| (report.states, report.edges))
                .next()
        };
        assert!(count().is_some());
        assert_eq!(count(), count());
    }

    #[test]
    fn a_mutant_that_shows_through_a_fault_alone_is_told_with_its_way() {
        let mutant = MUTANTS
            .iter()
            .find(|mutant| mutant.name == "sleeps-after-restart")
            .unwrap();
        let hunted = hunt(mutant);
        assert!(hunted.caught, "{}", hunted.verdict);
        let trace = hunted.failure.unwrap().trace;
        assert!(
            trace
                .iter()
                .any(|line| line == "# the controller crashes and starts again"),
            "{trace:#?}"
        );
    }

    #[test]
    fn the_shipped_code_is_no_mutant() {
        assert!(
            !hunt(&crate::mutant::Mutant {
                world: "ordered-create",
                ..SHIPPED
            })
            .caught
        );
    }

    #[test]
    fn names_are_names() {
        let worlds: Vec<_> = matrix()
            .iter()
            .chain(&large())
            .map(|world| world.name)
            .collect();
        let mutants: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        for names in [worlds, mutants] {
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
        }
        assert!(
            MUTANTS.len() >= 30
                && MUTANTS.iter().filter(|mutant| mutant.through_fault).count() >= 8
        );
    }
}
