//! Two server processes with their memory, two clients, and operators: lists the possible next steps, and executes
//! them. All commands to Redis go through the crate's own [`Queue`].

use std::collections::BTreeMap;

use threadq::internals::in_flight::Capacity;
use threadq::internals::queue::{Changed, Quarantine, Settled};
use threadq::job::Status;

use super::Scenario;
use super::real::{Real, Started, id, job};
use super::rules::{Effect, is_last_chance};
use super::step::{Answer, Job, Name, Slot, Step, What};
use super::view::{PULL, SUSPECTS, View, WORK, in_progress};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Life {
    Up,
    Paused,
    Gone,
}

/// An attempt in the memory of a server, or in a reply on its way to the server.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Attempt {
    job: Job,
    token: u64,
    /// The job's crashes when it was taken.
    crashes: u32,
    on_last_chance: bool,
    /// The name of the server at the take.
    under: Name,
    arrival: Arrival,
    /// The settlement that was sent without a reply so far.
    sent: Option<What>,
    /// Whether the attempt was asked to stop.
    told: bool,
}

/// Whether the reply to a take has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Arrival {
    AtOnce,
    /// The reply was delayed, perhaps until after the server had put the job back.
    Late,
    /// The reply is delayed, or lost.
    Missing,
}

/// What a server knows about another server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Seen {
    beat: String,
    /// Whether the other server has sent a heartbeat since.
    beaten: bool,
}

/// The memory of one server process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Process {
    life: Life,
    name: Name,
    /// The job that BRPOPLPUSH returned.
    fetched: Option<Job>,
    /// The job of a BRPOPLPUSH whose reply is delayed or lost.
    missing: Option<Job>,
    hands: Vec<Attempt>,
    wants_empty: bool,
    /// Whether a job on its final attempt has run: the other jobs come before the next such job.
    others_turn: bool,
    /// Whether Redis has refused the server's name.
    fenced: bool,
    seen: BTreeMap<Name, Seen>,
    /// Entries of its list that the server has found and does not know.
    unknown: Vec<Job>,
}

/// Everything outside Redis.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    processes: [Process; 2],
    /// The number of jobs whose submission got a reply.
    submitted: Job,
    faults: u32,
    cancels: u32,
    returns: u32,
    leaves: u32,
    /// BRPOPLPUSH calls of paused or dead servers that Redis may still execute.
    late_wakes: Vec<Name>,
    /// The attempts in the memory of pull workers, also those that were taken away since.
    pulled: Vec<Pulled>,
}

/// An attempt in the memory of a pull worker: job, token, and the answer that was sent without a reply so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Pulled {
    job: Job,
    token: u64,
    sent: Option<What>,
}

/// The most attempts that pull workers have at a time.
const MOST_PULLED: usize = 2;

impl World {
    /// Two servers that have just registered, and the scenario's jobs.
    pub fn new(scenario: &Scenario, real: &mut Real) -> World {
        let process = |slot| Process { life: Life::Up, ..Process::gone(Name(slot, 0)) };
        let mut world = World {
            processes: [process(0), process(1)],
            submitted: 0,
            faults: scenario.faults,
            cancels: scenario.cancels,
            returns: scenario.returns,
            leaves: scenario.leaves,
            late_wakes: Vec::new(),
            pulled: Vec::new(),
        };
        [0, 1].iter().for_each(|slot| real.register(Name(*slot, 0), scenario.workers).unwrap());
        scenario.room.iter().for_each(|room| real.define_limit(*room).unwrap());
        while !scenario.submits && world.submitted < scenario.jobs {
            world.submit(scenario, real, world.submitted, Answer::Heard).unwrap();
        }
        world
    }

    /// All possible next steps.
    pub fn steps(&self, scenario: &Scenario, view: &View, real: &mut Real) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.submitted < scenario.jobs {
            both(&mut steps, |answer| Step::Submit(self.submitted, answer));
        }
        for slot in [0, 1] {
            match self.processes[slot].life {
                Life::Up => self.own_steps(slot, scenario, view, real, &mut steps),
                Life::Paused => steps.push(Step::Resume(slot)),
                Life::Gone => steps.push(Step::Start(slot)),
            }
        }
        if !view.list(WORK).is_empty() {
            steps.extend(self.late_wakes.iter().map(|name| Step::LateWake(*name)));
        }
        if view.kept().next().is_some() {
            steps.push(Step::Lapse);
        }
        if scenario.pulls {
            self.pull_steps(scenario, view, &mut steps);
        }
        for (id, found) in &view.jobs {
            if self.cancels > 0 && !found.status.is_final() && !found.cancel {
                steps.push(Step::Cancel(job(id)));
            }
            if self.returns > 0 && matches!(found.status, Status::Failed | Status::Cancelled) {
                steps.push(Step::SendBack(job(id)));
            }
        }
        steps.retain(|step| !step.is_fault() || (self.faults > 0 && scenario.allows(step)));
        steps
    }

    fn pull_steps(&self, scenario: &Scenario, view: &View, steps: &mut Vec<Step>) {
        let has_room = self.pulled.len() < MOST_PULLED;
        if has_room && !(view.list(WORK).is_empty() && view.list(SUSPECTS).is_empty()) {
            both(steps, Step::Pull);
        }
        for (slot, process) in self.processes.iter().enumerate() {
            if has_room && process.life == Life::Up && process.fetched.is_some() {
                both(steps, |answer| Step::PullFetched(slot, answer));
            }
        }
        for Pulled { job, token, sent } in &self.pulled {
            steps.push(Step::Report(*job, *token));
            let whats = sent.as_ref().map_or(scenario.verdicts, std::slice::from_ref);
            whats.iter().for_each(|what| both(steps, |answer| Step::Reply(*job, *token, *what, answer)));
        }
        let pulled = view.jobs.iter().filter(|(_, job)| job.server.as_deref() == Some(PULL));
        steps.extend(pulled.map(|(id, _)| Step::LeaseEnd(job(id))));
    }

    fn own_steps(
        &self,
        slot: Slot,
        scenario: &Scenario,
        view: &View,
        real: &mut Real,
        steps: &mut Vec<Step>,
    ) {
        let process = &self.processes[slot];
        steps.extend([Step::Crash(slot), Step::Pause(slot)]);
        if self.leaves > 0 {
            steps.push(Step::Leave(slot));
        }
        if process.hands.iter().any(|attempt| !attempt.is_here())
            || (process.missing.is_some() && process.fetched.is_none())
        {
            steps.push(Step::Deliver(slot));
        }
        for attempt in process.hands.iter().filter(|attempt| attempt.is_here()) {
            let (job, token) = (attempt.job, attempt.token);
            if scenario.poison == Some(job) {
                steps.push(Step::Kill(slot, job));
                continue;
            }
            let stops = [What::Release].into_iter().filter(|_| attempt.told);
            let whats: Vec<What> = match attempt.sent {
                Some(what) => vec![what],
                None => scenario.verdicts.iter().copied().chain(stops).collect(),
            };
            whats.iter().for_each(|what| both(steps, |answer| Step::Settle(slot, job, token, *what, answer)));
            if scenario.again && attempt.sent.is_none() {
                both(steps, |answer| Step::Again(slot, job, token, answer));
            }
        }
        if process.fenced {
            steps.push(Step::Rejoin(slot));
            return;
        }
        let room = process.room(scenario, real);
        let waits = !view.list(WORK).is_empty();
        if waits && process.fetched.is_none() && room.jobs > 0 {
            both(steps, |answer| Step::Wake(slot, answer));
        }
        if process.fetched.is_some() || (room.jobs > 0 && (waits || !view.list(SUSPECTS).is_empty())) {
            both(steps, |answer| Step::Take(slot, answer));
        }
        steps.push(Step::Beat(slot));
        for name in process.seen.keys() {
            both(steps, |answer| Step::TakeOver(slot, *name, answer));
        }
        let list = view.list(&in_progress(real.name(process.name).as_str()));
        if list.iter().any(|id| !process.knows(job(id))) {
            steps.push(Step::Look(slot));
        }
        if !process.unknown.is_empty() {
            steps.push(Step::Recover(slot));
        }
        let parked =
            view.jobs.iter().filter(|(_, job)| matches!(job.status, Status::Scheduled | Status::Retrying));
        steps.extend(parked.map(|(id, _)| Step::Promote(slot, job(id))));
        if view.has_limit_word {
            steps.push(Step::LimitDue(slot));
        }
    }

    /// Executes a step on the real Redis. An error is a broken rule.
    pub fn apply(&mut self, step: &Step, scenario: &Scenario, real: &mut Real) -> Result<Effect, String> {
        if step.is_fault() {
            self.faults -= 1;
        }
        match *step {
            Step::Submit(job, answer) => return self.submit(scenario, real, job, answer),
            Step::LateWake(name) => return self.late_wake(name, real),
            Step::Cancel(job) => {
                self.cancels -= 1;
                real.cancel(job)?;
                return Ok(Effect::Cancelled(id(job)));
            }
            Step::SendBack(job) => {
                self.returns -= 1;
                let changed = real.send_back(job)?;
                if changed != Changed::Done {
                    return Err(format!("sent back: {changed:?}"));
                }
                return Ok(Effect::SentBack(id(job)));
            }
            Step::Wake(slot, answer) => {
                let entry = real.fetch(self.processes[slot].name)?;
                match answer {
                    Answer::Heard => self.processes[slot].fetched = Some(entry),
                    Answer::Lost => self.processes[slot].missing = Some(entry),
                }
            }
            Step::Take(slot, answer) => return self.take(slot, answer, scenario, real),
            Step::Deliver(slot) => {
                let process = &mut self.processes[slot];
                let missing = process.hands.iter_mut().filter(|attempt| !attempt.is_here());
                missing.for_each(|attempt| attempt.arrival = Arrival::Late);
                process.fetched = process.fetched.or(process.missing.take());
                process.unknown.clear();
            }
            Step::Settle(slot, job, token, what, answer) => {
                return self.settle(slot, job, token, what, answer, real);
            }
            Step::Again(slot, job, token, answer) => {
                return self.again(slot, job, token, answer, real);
            }
            Step::Beat(slot) => return self.beat(slot, real),
            Step::Rejoin(slot) => {
                let process = &mut self.processes[slot];
                process.name.1 += 1;
                process.fenced = false;
                process.unknown.clear();
                process.hands.iter_mut().for_each(|attempt| attempt.told = true);
                return self.enter(slot, scenario, real);
            }
            Step::TakeOver(slot, dead, answer) => {
                let process = &mut self.processes[slot];
                let Seen { beat, beaten } = process.seen[&dead].clone();
                let done = real.reclaim(dead, &beat, scenario.max_crashes)?;
                if answer == Answer::Heard {
                    process.seen.remove(&dead);
                }
                let dead = real.name(dead).to_string();
                return Ok(Effect::TakenOver { dead, observed: beat, beaten, done });
            }
            Step::Look(slot) => {
                let process = &mut self.processes[slot];
                let entries = real.in_progress(process.name)?;
                process.unknown = entries.into_iter().filter(|job| !process.knows(*job)).collect();
            }
            Step::Recover(slot) => {
                let process = &mut self.processes[slot];
                let unknown = std::mem::take(&mut process.unknown);
                if !scenario.late_answers {
                    process.hands.retain(|attempt| attempt.is_here() || !unknown.contains(&attempt.job));
                }
                real.recover(process.name, &unknown)?;
                let server = real.name(process.name).to_string();
                return Ok(Effect::Recovered { server, entries: unknown.into_iter().map(id).collect() });
            }
            Step::Promote(_, job) => {
                real.promote(job)?;
                return Ok(Effect::Promoted(id(job)));
            }
            Step::LimitDue(_) => real.limit_due()?,
            Step::Lapse => {
                let kept: Vec<String> = real.view(real.at()).kept().cloned().collect();
                real.lapse(&kept)?;
            }
            Step::Crash(slot) | Step::Kill(slot, _) => self.stop(slot, Life::Gone, scenario, real),
            Step::Pause(slot) => self.stop(slot, Life::Paused, scenario, real),
            Step::Resume(slot) => {
                let process = &mut self.processes[slot];
                process.life = Life::Up;
                let name = process.name;
                self.late_wakes.retain(|late| *late != name);
            }
            Step::Start(slot) => {
                let name = self.processes[slot].name;
                self.processes[slot] = Process { life: Life::Up, ..Process::gone(Name(slot, name.1 + 1)) };
                return self.enter(slot, scenario, real);
            }
            Step::Leave(slot) => {
                self.leaves -= 1;
                let name = self.processes[slot].name;
                self.processes[slot] = Process::gone(name);
                real.leave(name)?;
                return Ok(Effect::Left(real.name(name).to_string()));
            }
            Step::Pull(answer) => return self.pull(None, answer, scenario, real),
            Step::PullFetched(slot, answer) => {
                let process = &mut self.processes[slot];
                process.unknown.clear();
                let fetched = process.fetched.take().map(|job| (process.name, job));
                return self.pull(fetched, answer, scenario, real);
            }
            Step::Report(job, token) => {
                let accepted = real.report(job, token)?;
                return Ok(Effect::Reported { id: id(job), token, accepted });
            }
            Step::Reply(job, token, what, answer) => return self.reply(job, token, what, answer, real),
            Step::LeaseEnd(job) => {
                real.lease_end(job, scenario.max_crashes)?;
                return Ok(Effect::LeaseEnded(id(job)));
            }
        }
        Ok(Effect::Nothing)
    }

    fn submit(
        &mut self,
        scenario: &Scenario,
        real: &mut Real,
        job: Job,
        answer: Answer,
    ) -> Result<Effect, String> {
        if !real.submit(job, scenario)? {
            return Err("submitted twice".to_owned());
        }
        if answer == Answer::Heard {
            self.submitted += 1;
        }
        Ok(Effect::Submitted { id: id(job), delayed: scenario.delayed == Some(job) })
    }

    fn enter(&self, slot: Slot, scenario: &Scenario, real: &mut Real) -> Result<Effect, String> {
        let name = self.processes[slot].name;
        real.register(name, scenario.workers)?;
        Ok(Effect::Entered(real.name(name).to_string()))
    }

    /// Stops a process. Redis may still execute a BRPOPLPUSH in which its fetcher waited.
    fn stop(&mut self, slot: Slot, life: Life, scenario: &Scenario, real: &mut Real) {
        let process = &mut self.processes[slot];
        let sleeps = !process.fenced && process.fetched.is_none() && process.room(scenario, real).jobs > 0;
        let name = process.name;
        match life {
            Life::Gone => *process = Process::gone(name),
            _ => process.life = life,
        }
        if sleeps && scenario.late_wakes {
            self.late_wakes.push(name);
            self.late_wakes.sort();
        }
    }

    fn late_wake(&mut self, name: Name, real: &mut Real) -> Result<Effect, String> {
        self.late_wakes.retain(|late| *late != name);
        let entry = real.fetch(name)?;
        let process = &mut self.processes[name.0];
        if process.name == name && process.life == Life::Paused {
            process.fetched = Some(entry);
        }
        Ok(Effect::Nothing)
    }

    fn take(
        &mut self,
        slot: Slot,
        answer: Answer,
        scenario: &Scenario,
        real: &mut Real,
    ) -> Result<Effect, String> {
        let process = &mut self.processes[slot];
        process.unknown.clear();
        let room = process.room(scenario, real);
        let fetched = process.fetched.take();
        let server = real.name(process.name).to_string();
        let Some(took) = real.take(process.name, room, fetched, scenario.max_crashes)? else {
            process.fenced = answer == Answer::Heard;
            return Ok(Effect::Refused(server));
        };
        if took.started.len() > room.jobs {
            return Err(format!("room for {}, taken: {took:?}", room.jobs));
        }
        let arrival = if answer == Answer::Heard { Arrival::AtOnce } else { Arrival::Missing };
        if answer == Answer::Heard {
            match room.quarantine {
                Quarantine::Skip => process.others_turn = false,
                Quarantine::Reserve => process.wants_empty |= took.must_drain,
                Quarantine::Start => process.wants_empty = took.must_drain,
            }
        }
        let attempts = took.started.iter().map(|started| Attempt {
            job: started.job,
            token: started.token,
            crashes: started.crashes,
            on_last_chance: is_last_chance(started.crashes, scenario.max_crashes),
            under: process.name,
            arrival,
            sent: None,
            told: false,
        });
        process.hands.extend(attempts);
        process.hands.sort();
        let started = took.started.iter().map(|started| (id(started.job), started.token)).collect();
        Ok(Effect::Taken { server, started })
    }

    fn settle(
        &mut self,
        slot: Slot,
        job: Job,
        token: u64,
        what: What,
        answer: Answer,
        real: &mut Real,
    ) -> Result<Effect, String> {
        let process = &mut self.processes[slot];
        let settled = real.settle(process.name, job, token, what)?;
        let at = process.position(job, token);
        let again = process.hands[at].sent.is_some();
        process.unknown.clear();
        match answer {
            Answer::Heard => process.drop_hand(at),
            Answer::Lost => process.hands[at].sent = Some(what),
        }
        let server = real.name(process.name).to_string();
        Ok(Effect::Settled { server, id: id(job), token, what: Some(what), again, answer: settled })
    }

    fn pull(
        &mut self,
        fetched: Option<(Name, Job)>,
        answer: Answer,
        scenario: &Scenario,
        real: &mut Real,
    ) -> Result<Effect, String> {
        let room = MOST_PULLED - self.pulled.len();
        let started = real.pull(room, fetched, scenario.max_crashes)?;
        let is_alone = |started: &Started| is_last_chance(started.crashes, scenario.max_crashes);
        if started.len() > room || (started.len() > 1 && started.iter().any(is_alone)) {
            return Err(format!("given out together: {started:?}"));
        }
        if answer == Answer::Heard {
            let pulled =
                started.iter().map(|started| Pulled { job: started.job, token: started.token, sent: None });
            self.pulled.extend(pulled);
            self.pulled.sort();
        }
        let started = started.iter().map(|started| (id(started.job), started.token)).collect();
        Ok(Effect::Taken { server: PULL.to_owned(), started })
    }

    fn reply(
        &mut self,
        job: Job,
        token: u64,
        what: What,
        answer: Answer,
        real: &mut Real,
    ) -> Result<Effect, String> {
        let settled = real.reply(job, token, what)?;
        let at = self
            .pulled
            .iter()
            .position(|pulled| (pulled.job, pulled.token) == (job, token))
            .expect("in hand");
        let again = self.pulled[at].sent.is_some();
        match answer {
            Answer::Heard => _ = self.pulled.remove(at),
            Answer::Lost => self.pulled[at].sent = Some(what),
        }
        Ok(Effect::Settled {
            server: PULL.to_owned(),
            id: id(job),
            token,
            what: Some(what),
            again,
            answer: settled,
        })
    }

    fn again(
        &mut self,
        slot: Slot,
        job: Job,
        token: u64,
        answer: Answer,
        real: &mut Real,
    ) -> Result<Effect, String> {
        let process = &mut self.processes[slot];
        let (settled, next) = real.start_again(process.name, job, token)?;
        let at = process.position(job, token);
        process.unknown.clear();
        match (answer, settled) {
            // Without a reply the worker parks the job instead, with its present lease.
            (Answer::Lost, _) => process.hands[at].sent = Some(What::Retry),
            (_, Settled::Now(Status::Processing)) => process.hands[at].token = next,
            _ => process.drop_hand(at),
        }
        let server = real.name(process.name).to_string();
        Ok(Effect::Settled { server, id: id(job), token, what: None, again: false, answer: settled })
    }

    fn beat(&mut self, slot: Slot, real: &mut Real) -> Result<Effect, String> {
        let name = self.processes[slot].name;
        let Some(heard) = real.beat(name)? else {
            self.processes[slot].fenced = true;
            return Ok(Effect::Refused(real.name(name).to_string()));
        };
        // Keep only silent servers and dead servers with entries: the others do not matter.
        let other = &self.processes[1 - slot];
        let works = |name: Name| name == other.name && other.life == Life::Up;
        let others = heard.servers.into_iter().filter(|(server, _)| *server != name);
        let telling = others.filter(|(server, beat)| beat.starts_with('D') || !works(*server));
        let seen = telling.map(|(server, beat)| (server, Seen { beat, beaten: false })).collect();
        let process = &mut self.processes[slot];
        process.seen = seen;
        let cancelled = process.hands.iter_mut().filter(|attempt| heard.cancels.contains(&attempt.job));
        cancelled.for_each(|attempt| attempt.told = true);
        // The next state has the counter 1 again, so an earlier observation of it becomes 0, an older value.
        if let Some(seen) = self.processes[1 - slot].seen.get_mut(&name).filter(|seen| seen.beat == "1") {
            seen.beaten = true;
            if heard.counted {
                seen.beat = "0".to_owned();
            }
        }
        Ok(Effect::Nothing)
    }

    /// Checks that the servers' memory agrees with Redis.
    pub fn check(&self, view: &View, real: &Real) -> Result<(), String> {
        let mut tokens: Vec<(Job, u64)> =
            self.pulled.iter().map(|pulled| (pulled.job, pulled.token)).collect();
        for process in &self.processes {
            process.check_last_chance()?;
            for attempt in &process.hands {
                tokens.push((attempt.job, attempt.token));
                let server = real.name(process.name).as_str();
                let is_sure = attempt.arrival == Arrival::AtOnce && attempt.sent.is_none();
                let believes = is_sure && attempt.under == process.name;
                if believes && view.is_alive(server) {
                    let found = &view.jobs[&id(attempt.job)];
                    if found.server.as_deref() != Some(server) || found.starts != attempt.token {
                        return Err(format!(
                            "{server} lives and its attempt is no longer its own: {attempt:?}, {found:?}"
                        ));
                    }
                }
            }
        }
        let count = tokens.len();
        tokens.sort();
        tokens.dedup();
        if tokens.len() < count { Err(format!("an attempt is in two hands: {self:?}")) } else { Ok(()) }
    }

    /// Whether a step happens sooner or later without chance. A stopped server need not return while the other server
    /// works.
    pub fn is_bound_to(&self, step: &Step) -> bool {
        let works = |slot: Slot| self.processes[slot].life == Life::Up;
        match step {
            Step::Resume(slot) | Step::Start(slot) => !works(1 - slot),
            step => step.is_bound_to_happen(),
        }
    }
}

impl Attempt {
    fn is_here(&self) -> bool {
        self.arrival != Arrival::Missing
    }
}

impl Process {
    fn knows(&self, job: Job) -> bool {
        self.fetched == Some(job) || self.hands.iter().any(|a| a.job == job && a.is_here())
    }

    /// The index of an attempt in the memory of the server.
    fn position(&self, job: Job, token: u64) -> usize {
        self.hands.iter().position(|a| a.job == job && a.token == token && a.is_here()).expect("in hand")
    }

    fn room(&self, scenario: &Scenario, real: &mut Real) -> Capacity {
        let here = self.hands.iter().filter(|attempt| attempt.is_here());
        let hands = here.map(|a| (a.job, a.token, a.crashes, a.sent.is_none())).collect();
        real.room(hands, (self.wants_empty, self.others_turn), scenario.workers, scenario.max_crashes)
    }

    /// Removes an attempt after its outcome is written.
    fn drop_hand(&mut self, at: usize) {
        self.others_turn |= self.hands.remove(at).on_last_chance;
    }

    /// Checks that no attempt runs beside a final attempt. Attempts whose reply came late may.
    fn check_last_chance(&self) -> Result<(), String> {
        let here = || self.hands.iter().filter(|attempt| attempt.arrival == Arrival::AtOnce);
        let alone = here().find(|attempt| attempt.on_last_chance);
        match alone {
            Some(alone) if here().count() > 1 => {
                Err(format!("job {} is on its last chance, and not alone: {:?}", alone.job + 1, self.hands))
            }
            _ => Ok(()),
        }
    }

    fn gone(name: Name) -> Process {
        Process {
            life: Life::Gone,
            name,
            fetched: None,
            missing: None,
            hands: Vec::new(),
            wants_empty: false,
            others_turn: false,
            fenced: false,
            seen: BTreeMap::new(),
            unknown: Vec::new(),
        }
    }
}

/// Adds the step with a reply, and with a lost reply.
fn both(steps: &mut Vec<Step>, step: impl Fn(Answer) -> Step) {
    steps.extend([step(Answer::Heard), step(Answer::Lost)]);
}
