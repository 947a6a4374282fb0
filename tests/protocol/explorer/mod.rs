//! All interleavings of two servers and two jobs, with the real scripts on a real Redis.
//!
//! A state is the data in Redis and the memory of two server processes. From each state the explorer does every
//! possible step through [`threadq::internals::queue::Queue`]; it explores equal states once. After every step it
//! checks the rules of `rules.rs`; at the end it shows that from every state the jobs reach their ends by what working
//! servers do by themselves.
//!
//! The scenario bounds the number of faults (a crash, a pause, a reply that is lost or late), and with it the search.
//! The longer searches, a few minutes each, one half an hour:
//! `cargo test --test protocol -- --ignored --nocapture --test-threads 2 explorer::deep`;
//! the mutants of the scripts that the explorer alone notices (`THREADQ_GUARDS` names a part, as in
//! `guards/mod.rs`):
//! `cargo test --test protocol -- --ignored --nocapture explorer::guards`.

mod real;
mod rules;
mod search;
mod step;
mod store;
mod view;
mod world;

use threadq::job::Status;

use crate::fixture::long_lists;
use crate::guards::{Change, Mutant};
use rules::Limits;
use search::{Violation, explore};
use step::{Job, Step, What};
use view::View;

/// The parameters of an exploration.
#[derive(Clone, Copy)]
pub struct Scenario {
    name: &'static str,
    jobs: usize,
    /// Whether clients submit the jobs during the exploration; otherwise the jobs wait at the beginning.
    submits: bool,
    /// The job that is submitted with a delay.
    delayed: Option<Job>,
    /// The job that kills every server that runs it.
    poison: Option<Job>,
    workers: usize,
    verdicts: &'static [What],
    /// Whether the next attempt may follow a failed attempt on the same thread.
    again: bool,
    max_attempts: u32,
    max_crashes: u32,
    /// The most faults, and the allowed kinds.
    faults: u32,
    allowed: fn(&Step) -> bool,
    /// Whether Redis may execute a BRPOPLPUSH after its server was paused or has crashed.
    late_wakes: bool,
    /// Whether the reply to a take may arrive after its jobs were put back, as on a server that was frozen meanwhile:
    /// it waits less than 2 s for the reply, and puts back entries that it does not know after 6 s.
    late_answers: bool,
    /// Whether a reclaim handles one entry at a time, and may be interrupted between two entries.
    small_steps: bool,
    /// Whether every list counts as long: a cancelled job leaves a tombstone in it.
    long_lists: bool,
    /// How often an operator cancels a job, and retries a job.
    cancels: u32,
    returns: u32,
    /// How often a server stops by SIGTERM.
    leaves: u32,
    /// The room of a limit that all jobs have.
    room: Option<u32>,
    /// Whether pull workers take jobs too.
    pulls: bool,
    /// The rule for states in which all jobs have ended.
    end: fn(&View, &Scenario) -> Result<(), String>,
}

const PLAIN: Scenario = Scenario {
    name: "plain",
    jobs: 2,
    submits: false,
    delayed: None,
    poison: None,
    workers: 2,
    verdicts: &[What::Complete],
    again: false,
    max_attempts: 2,
    max_crashes: 3,
    faults: 1,
    allowed: |_| true,
    late_wakes: true,
    late_answers: true,
    small_steps: false,
    long_lists: false,
    cancels: 0,
    returns: 0,
    leaves: 0,
    room: None,
    pulls: false,
    end: |_, _| Ok(()),
};

impl Scenario {
    fn allows(&self, fault: &Step) -> bool {
        (self.allowed)(fault)
    }

    fn limits(&self) -> Limits {
        let step = if self.small_steps { 1 } else { usize::MAX };
        Limits { max_attempts: self.max_attempts, max_crashes: self.max_crashes, step, room: self.room }
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.small_steps {
            // Handle one entry and report that no entry is left: as if the reaper ended there.
            changes.push(Change::new("reclaim", "tonumber(ARGV[5])", "1"));
            let told = "return {'reclaimed', moved, left,";
            changes.push(Change::new("reclaim", told, "return {'reclaimed', moved, 0,"));
        }
        if self.long_lists {
            changes.push(long_lists());
        }
        changes
    }
}

#[track_caller]
fn holds(scenario: Scenario) {
    match explore(scenario, &[]) {
        Ok(explored) => assert!(explored.ends > 0, "{}: nothing ever ended", scenario.name),
        Err(Violation(text)) => panic!("{text}"),
    }
}

/// Jobs whose attempts fail, are repeated on the same thread, and run out.
const FAILING: Scenario = Scenario {
    name: "failing",
    jobs: 1,
    verdicts: &[What::Complete, What::Retry, What::Fail],
    again: true,
    ..PLAIN
};

/// An operator cancels jobs, and retries cancelled and failed jobs.
const PEOPLE: Scenario = Scenario {
    name: "people",
    jobs: 1,
    verdicts: &[What::Complete, What::Fail],
    late_wakes: false,
    allowed: |fault| matches!(fault, Step::Crash(_) | Step::Settle(..)),
    cancels: 1,
    returns: 1,
    ..PLAIN
};

/// The same, and a cancelled job leaves a tombstone in its queue.
const PEOPLE_AND_LONG_LISTS: Scenario = Scenario {
    name: "people and long lists",
    long_lists: true,
    cancels: 2,
    returns: 2,
    allowed: |fault| matches!(fault, Step::Crash(_)),
    verdicts: &[What::Complete],
    ..PEOPLE
};

/// A job that kills every server, and a good job. No reply is late: a job that was put back and runs nevertheless could
/// kill a server during another job's final attempt.
const POISON: Scenario = Scenario {
    name: "poison",
    late_answers: false,
    poison: Some(0),
    max_crashes: 2,
    late_wakes: false,
    faults: 0,
    end: |view, scenario| {
        let mut jobs = view.jobs.values();
        let (poison, good) = (jobs.next().unwrap(), jobs.next().unwrap());
        // A lost reply may undo a final attempt, which is then repeated.
        let most = scenario.max_crashes + scenario.faults;
        if poison.status != Status::Failed || !(scenario.max_crashes..=most).contains(&poison.crashes) {
            return Err(format!("the job that kills is {poison:?}"));
        }
        if good.status != Status::Completed || good.crashes >= most {
            return Err(format!("the job beside it is {good:?}"));
        }
        Ok(())
    },
    ..PLAIN
};

/// A server that reclaims jobs may end between any two entries.
const SMALL_STEPS: Scenario = Scenario {
    name: "small steps",
    small_steps: true,
    late_wakes: false,
    allowed: |fault| matches!(fault, Step::Crash(_) | Step::Pause(_)),
    ..PLAIN
};

/// Clients that submit jobs, one of them delayed, and servers that are stopped by SIGTERM.
const COMING_AND_GOING: Scenario = Scenario {
    name: "coming and going",
    submits: true,
    delayed: Some(1),
    late_wakes: false,
    workers: 1,
    allowed: |fault| matches!(fault, Step::Submit(..)),
    leaves: 1,
    ..PLAIN
};

/// Jobs with a limit that has room for one. Places lapse.
const LIMITED: Scenario = Scenario {
    name: "limited",
    room: Some(1),
    late_wakes: false,
    late_answers: false,
    workers: 1,
    allowed: |fault| matches!(fault, Step::Crash(_) | Step::Take(..) | Step::Settle(..)),
    ..PLAIN
};

/// The same without faults, and an operator cancels a job.
const LIMITED_PEOPLE: Scenario =
    Scenario { name: "limited, and people", cancels: 1, returns: 1, faults: 0, ..LIMITED };

/// Pull workers beside a server: leases end, answers come late or are lost, and a job on its last chance is given out alone.
const PULLED: Scenario = Scenario {
    name: "pulled",
    pulls: true,
    jobs: 1,
    workers: 1,
    max_crashes: 2,
    verdicts: &[What::Complete, What::Retry],
    late_wakes: false,
    late_answers: false,
    allowed: |fault| matches!(fault, Step::Pull(_) | Step::PullFetched(..) | Step::Reply(..)),
    ..PLAIN
};

/// The same without faults, and an operator cancels and retries.
const PULLED_PEOPLE: Scenario = Scenario {
    name: "pulled, and people",
    verdicts: &[What::Complete, What::Fail],
    cancels: 1,
    returns: 1,
    faults: 0,
    ..PULLED
};

/// Two pulled jobs under a limit that has room for one.
const PULLED_LIMITED: Scenario = Scenario {
    name: "pulled, limited",
    jobs: 2,
    verdicts: &[What::Complete],
    room: Some(1),
    faults: 0,
    ..PULLED
};

#[test]
fn whatever_the_order_every_job_ends_once() {
    holds(PLAIN);
}

#[test]
fn whatever_fails_attempts_are_counted_and_bounded() {
    holds(FAILING);
}

#[test]
fn whenever_a_person_intervenes() {
    holds(PEOPLE);
}

#[test]
fn whenever_a_person_intervenes_in_a_long_queue() {
    holds(PEOPLE_AND_LONG_LISTS);
}

#[test]
fn a_job_that_kills_servers_is_found_and_nobody_else_is_blamed() {
    holds(POISON);
}

#[test]
fn whoever_takes_over_may_end_half_way() {
    holds(SMALL_STEPS);
}

#[test]
fn jobs_and_servers_come_and_go() {
    holds(COMING_AND_GOING);
}

#[test]
fn a_limit_is_never_exceeded_and_lets_every_job_start() {
    holds(LIMITED);
    holds(LIMITED_PEOPLE);
}

#[test]
fn leases_end_and_late_answers_change_nothing() {
    holds(PULLED);
    holds(PULLED_PEOPLE);
}

#[test]
fn pull_workers_and_servers_share_the_room_of_a_limit() {
    holds(PULLED_LIMITED);
}

/// The violation that the explorer finds with a changed script, if any.
fn violation_with(change: Change, scenario: Scenario) -> Option<String> {
    explore(scenario, &[change]).err().map(|Violation(text)| text)
}

/// The explorer notices errors: without a guard it finds and reports a path that breaks a rule.
#[test]
fn what_is_broken_is_found() {
    let owner = "if job[2] ~= server or job[3] ~= token then return";
    for (script, guard, without, scenario, told) in [
        ("settle", owner, "if job[2] ~= server then return", FAILING, "begins the next attempt"),
        ("settle", owner, "if job[3] ~= token then return", PLAIN, "settles job 1"),
        ("settle", "if status ~= 'processing' then return 'repeated' end", "", FAILING, "the answer is lost"),
        (
            "start_jobs",
            "if not is_pull and not is_registered(server) then return {'fenced'} end",
            "",
            PLAIN,
            "takes over A1",
        ),
        (
            "start_jobs",
            " and call('LPOS', list, claimed) then",
            " then",
            PLAIN,
            "gets the answer that was held up",
        ),
        (
            "start_jobs",
            "if runs_here and #call(",
            "if false and #call(",
            FAILING,
            "gets the answer that was held up",
        ),
        (
            "start_jobs",
            "  if status ~= 'queued' then",
            "  if not status then",
            PEOPLE,
            "a person cancels job 1",
        ),
        ("limits", "if call('ZREM', SLOTS .. limit, id) == 1 then free(limit) end", "", LIMITED, "settles"),
        ("settle", "    call('ZREM', AGENDA, 'lease:' .. id)\n", "", PULLED, "a pull worker answers"),
        ("due", "  call('LREM', IN_PROGRESS .. PULL, -1, id)\n", "", PULLED, "the lease of job 1 ends"),
        (
            "report",
            "if job[1] ~= 'processing' or job[2] ~= ARGV[place + 1] then return {} end",
            "",
            PULLED,
            "a pull worker reports",
        ),
        ("reclaim", "(mode == 'crash' and beat ~= ARGV[2])", "false", PLAIN, "beats and looks at the others"),
        ("reclaim", "  call('HSET', SERVERS, server, beat)", "", PLAIN, "takes over"),
        ("ties", "call('HSET', JOB .. id, 'crashes', digits(crashes))", "", POISON, "kills"),
        (
            "due",
            "  call('ZREM', SCHEDULED, id)\n  local job",
            "  local job",
            FAILING,
            "the time of job 1 comes",
        ),
    ] {
        let text = violation_with(Change::new(script, guard, without), scenario)
            .unwrap_or_else(|| panic!("{script}: nothing found without {guard:?}"));
        println!("{script} without {guard:?}:\n{text}");
        assert!(text.contains(told), "{script} without {guard:?}:\n{text}");
    }
}

/// Any two faults of all kinds, one after the other or at once.
#[test]
#[ignore = "some minutes"]
fn deep_one_job_and_two_faults() {
    holds(Scenario { name: "two faults", jobs: 1, faults: 2, ..FAILING });
    holds(Scenario { name: "two faults and people", jobs: 1, faults: 2, ..PEOPLE });
}

#[test]
#[ignore = "some minutes"]
fn deep_two_jobs_and_two_stops() {
    let stops: fn(&Step) -> bool = |fault| matches!(fault, Step::Crash(_) | Step::Pause(_));
    holds(Scenario { name: "two stops", faults: 2, allowed: stops, ..PLAIN });
}

#[test]
#[ignore = "some minutes"]
fn deep_two_stops_of_servers_that_take_over_in_small_steps() {
    holds(Scenario { name: "two stops, small steps", faults: 2, ..SMALL_STEPS });
}

#[test]
#[ignore = "some minutes"]
fn deep_a_job_that_kills_servers_and_a_lost_answer() {
    holds(Scenario { name: "poison, three crashes", max_crashes: 3, late_wakes: true, ..POISON });
    let lost: fn(&Step) -> bool = |fault| !matches!(fault, Step::Crash(_) | Step::Pause(_));
    holds(Scenario { name: "poison, lost answers", faults: 1, allowed: lost, ..POISON });
}

#[test]
#[ignore = "some minutes"]
fn deep_people_and_any_fault() {
    holds(Scenario { name: "people, any fault", allowed: |_| true, late_wakes: true, ..PEOPLE });
    holds(Scenario {
        name: "coming and going, any fault",
        allowed: |_| true,
        workers: 2,
        ..COMING_AND_GOING
    });
}

#[test]
#[ignore = "some minutes"]
fn deep_a_limit_and_any_fault() {
    holds(Scenario { name: "limited, any fault", allowed: |_| true, leaves: 1, ..LIMITED });
    holds(Scenario { name: "limited, given back", verdicts: &[What::Complete, What::Release], ..LIMITED });
    holds(Scenario { name: "limited, people and a fault", faults: 1, ..LIMITED_PEOPLE });
}

#[test]
#[ignore = "half an hour"]
fn deep_pull_workers_and_any_fault() {
    holds(Scenario { name: "pulled, any fault", allowed: |_| true, late_wakes: true, leaves: 1, ..PULLED });
}

#[test]
#[ignore = "some minutes"]
fn deep_two_pulled_jobs_and_a_crash() {
    let crash: fn(&Step) -> bool = |fault| matches!(fault, Step::Crash(_));
    holds(Scenario { name: "two pulled, a crash", room: None, faults: 1, allowed: crash, ..PULLED_LIMITED });
}

#[test]
#[ignore = "some minutes"]
fn deep_pull_workers_and_people_and_a_fault() {
    holds(Scenario { name: "pulled, people and a fault", faults: 1, ..PULLED_PEOPLE });
}

#[test]
#[ignore = "some minutes"]
fn deep_pull_workers_and_a_limit_and_a_fault() {
    holds(Scenario { name: "pulled, limited, a fault", faults: 1, ..PULLED_LIMITED });
}

#[test]
#[ignore = "explores eleven times for each mutant: some hours"]
fn guards_that_are_noticed() {
    let scenarios = [
        PLAIN,
        FAILING,
        PEOPLE,
        SMALL_STEPS,
        COMING_AND_GOING,
        POISON,
        LIMITED,
        LIMITED_PEOPLE,
        PULLED,
        PULLED_PEOPLE,
        PULLED_LIMITED,
    ];
    for mutant in Mutant::chosen() {
        let found = scenarios.iter().find_map(|scenario| violation_with(mutant.change(), *scenario));
        let first = found.as_deref().and_then(|text| text.lines().next());
        println!("{:<100} {}", mutant.to_string(), first.unwrap_or("-"));
    }
}
