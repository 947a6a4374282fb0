//! The search: every reachable state once, by the shortest path.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::rc::Rc;
use std::time::Instant;

use super::Scenario;
use super::real::Real;
use super::rules::{check_change, check_state};
use super::step::Step;
use super::store::Snapshot;
use super::world::World;
use crate::guards::Change;

/// More states than this are too many for the time that a test has.
const MOST_STATES: usize = 3_000_000;

/// The data in Redis, and the memory of clients and servers.
type State = Rc<(Snapshot, World)>;

struct Node {
    state: State,
    /// The state and the step from which it was reached first.
    from: Option<(u32, Step)>,
    depth: u32,
}

/// The result of a search.
pub struct Explored {
    pub states: usize,
    pub transitions: usize,
    /// Calls of the queue on a real Redis: each call once per state of Redis.
    pub calls: usize,
    /// States in which all jobs have ended.
    pub ends: usize,
    /// The length of the longest shortest path, in steps.
    pub depth: u32,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Explored { states, transitions, calls, ends, depth } = self;
        write!(
            f,
            "{states} states, {transitions} transitions, {calls} calls, {ends} ends, {depth} steps deep"
        )
    }
}

/// A broken rule, with the shortest path to it.
#[derive(Debug)]
pub struct Violation(pub String);

pub struct Search {
    scenario: Scenario,
    real: Real,
    nodes: Vec<Node>,
    numbers: HashMap<State, u32>,
    /// For each state: the states from which a step that must happen leads to it.
    backwards: Vec<Vec<u32>>,
    /// The states in which all jobs have ended.
    ends: Vec<u32>,
}

/// Explores a scenario to its end, with the scripts changed as the scenario and the caller say.
pub fn explore(scenario: Scenario, changes: &[Change]) -> Result<Explored, Violation> {
    let begin = Instant::now();
    let mut all = scenario.changes();
    all.extend_from_slice(changes);
    let mut search = Search {
        scenario,
        real: Real::new(&all),
        nodes: Vec::new(),
        numbers: HashMap::new(),
        backwards: Vec::new(),
        ends: Vec::new(),
    };
    let explored = search.run()?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}: {explored} in {seconds:.1} s", search.scenario.name);
    Ok(explored)
}

impl Search {
    fn run(&mut self) -> Result<Explored, Violation> {
        let world = World::new(&self.scenario, &mut self.real);
        self.enter(Rc::new((self.real.at(), world)), None);
        let (mut next, mut transitions) = (0, 0);
        while next < self.nodes.len() {
            assert!(next < MOST_STATES, "{}: too many states", self.scenario.name);
            if next > 0 && next % 100_000 == 0 {
                println!("{}: {next} states of {} explored", self.scenario.name, self.nodes.len());
            }
            transitions += self.expand(next as u32)?;
            next += 1;
        }
        self.check_ends()?;
        Ok(Explored {
            states: self.nodes.len(),
            transitions,
            calls: self.real.count(),
            ends: self.ends.len(),
            depth: self.nodes.iter().map(|node| node.depth).max().unwrap_or(0),
        })
    }

    /// Executes all possible steps of a state. Returns their number.
    fn expand(&mut self, number: u32) -> Result<usize, Violation> {
        let state = self.nodes[number as usize].state.clone();
        let (snapshot, world) = &*state;
        let before = self.real.view(*snapshot);
        let limits = self.scenario.limits();
        if before.is_quiet() && before.jobs.len() == self.scenario.jobs {
            self.ends.push(number);
            if let Err(reason) = (self.scenario.end)(&before, &self.scenario) {
                return Err(self.violation(number, None, &reason));
            }
        }
        let steps = world.steps(&self.scenario, &before, &mut self.real);
        for step in &steps {
            self.real.go_to(*snapshot);
            let mut next = world.clone();
            let effect = next.apply(step, &self.scenario, &mut self.real);
            let snapshot = self.real.at();
            let after = self.real.view(snapshot);
            let judged = effect.and_then(|effect| check_change(&before, &after, &effect, limits));
            let after = Rc::new((snapshot, next));
            let known = self.numbers.get(&after).copied();
            let judged = judged.and_then(|()| match known {
                Some(_) => Ok(()),
                None => self.check(&after),
            });
            if let Err(reason) = judged {
                return Err(self.violation(number, Some(step), &reason));
            }
            let reached = known.unwrap_or_else(|| self.enter(after, Some((number, step.clone()))));
            if reached != number && world.is_bound_to(step) {
                self.backwards[reached as usize].push(number);
            }
        }
        Ok(steps.len())
    }

    fn check(&mut self, state: &State) -> Result<(), String> {
        let (snapshot, world) = &**state;
        let view = self.real.view(*snapshot);
        check_state(&view, self.scenario.cancels > 0, self.scenario.limits())?;
        world.check(&view, &self.real)
    }

    fn enter(&mut self, state: State, from: Option<(u32, Step)>) -> u32 {
        let number = self.nodes.len() as u32;
        let depth = from.as_ref().map_or(0, |(from, _)| self.nodes[*from as usize].depth + 1);
        self.numbers.insert(state.clone(), number);
        self.nodes.push(Node { state, from, depth });
        self.backwards.push(Vec::new());
        number
    }

    /// Checks that working servers bring all jobs to their ends from every state, without chance and without an
    /// operator.
    fn check_ends(&mut self) -> Result<(), Violation> {
        let mut ends = vec![false; self.nodes.len()];
        let mut open = self.ends.clone();
        while let Some(number) = open.pop() {
            if !std::mem::replace(&mut ends[number as usize], true) {
                open.extend(&self.backwards[number as usize]);
            }
        }
        match ends.iter().position(|ends| !ends) {
            Some(stuck) => Err(self.violation(stuck as u32, None, "from here the jobs never end")),
            None => Ok(()),
        }
    }

    /// Describes the path to a state, and the step that breaks a rule there.
    fn violation(&mut self, number: u32, step: Option<&Step>, reason: &str) -> Violation {
        let mut way: Vec<&Step> = step.into_iter().collect();
        let mut at = &self.nodes[number as usize];
        while let Some((from, step)) = &at.from {
            way.push(step);
            at = &self.nodes[*from as usize];
        }
        let mut text = format!("{}: {reason}\n", self.scenario.name);
        for (number, step) in way.iter().rev().enumerate() {
            let _ = writeln!(text, "  {:>2}. {step}", number + 1);
        }
        let state = &self.nodes[number as usize].state;
        let _ = writeln!(text, "  before the last step: {:?}\n  {:?}", self.real.view(state.0), state.1);
        Violation(self.real.readable(&text))
    }
}
