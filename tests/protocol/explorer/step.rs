//! The steps that the explorer interleaves, and their descriptions in a counter-example.

use std::fmt;

/// A job: 0 or 1.
pub type Job = usize;
/// A server process: 0 or 1. Its name may change.
pub type Slot = usize;

/// The name of a server: its slot, and the number of the name, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name(pub Slot, pub usize);

/// How an attempt is settled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum What {
    Complete,
    Retry,
    Fail,
    Release,
}

/// Whether the caller of a step gets the reply of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    Heard,
    Lost,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A client submits a job with an Idempotency-Key, and repeats the request without a reply.
    Submit(Job, Answer),
    /// A fetcher's BRPOPLPUSH gets a job.
    Wake(Slot, Answer),
    /// Redis executes a BRPOPLPUSH of a server that is paused or dead by now.
    LateWake(Name),
    Take(Slot, Answer),
    /// A delayed reply to a take or a BRPOPLPUSH arrives.
    Deliver(Slot),
    Settle(Slot, Job, u64, What, Answer),
    /// The next attempt follows a failed attempt on the same thread.
    Again(Slot, Job, u64, Answer),
    /// A server sends a heartbeat, and observes the other server.
    Beat(Slot),
    /// A server that was refused takes a new name.
    Rejoin(Slot),
    /// A server reclaims the jobs of a server without heartbeats.
    TakeOver(Slot, Name, Answer),
    /// A server looks for entries of its list that it does not know.
    Look(Slot),
    /// A server puts back the entries that it found.
    Recover(Slot),
    /// A scheduled job is due, and a server moves it to its queue.
    Promote(Slot, Job),
    /// The time has come to look at the limit, and a server does.
    LimitDue(Slot),
    /// So much time passes that the places of jobs that were sent on have lapsed.
    Lapse,
    Crash(Slot),
    /// A poison job ends its server.
    Kill(Slot, Job),
    Pause(Slot),
    Resume(Slot),
    Start(Slot),
    /// A server stops by SIGTERM, with any attempts.
    Leave(Slot),
    Cancel(Job),
    SendBack(Job),
    /// Pull workers take jobs from a server that has fetched none.
    Pull(Answer),
    /// A server gives the job that it has fetched to pull workers.
    PullFetched(Slot, Answer),
    /// A pull worker reports, perhaps after its lease has ended.
    Report(Job, u64),
    /// A pull worker answers, perhaps after its lease has ended.
    Reply(Job, u64, What, Answer),
    /// The lease of a job ends, and a server notices.
    LeaseEnd(Job),
}

impl Step {
    /// Whether the step is a fault; a scenario limits their number.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Step::Crash(_)
                | Step::Pause(_)
                | Step::Submit(_, Answer::Lost)
                | Step::Wake(_, Answer::Lost)
                | Step::Take(_, Answer::Lost)
                | Step::Settle(.., Answer::Lost)
                | Step::Again(.., Answer::Lost)
                | Step::TakeOver(.., Answer::Lost)
                | Step::Pull(Answer::Lost)
                | Step::PullFetched(_, Answer::Lost)
                | Step::Reply(.., Answer::Lost)
        )
    }

    /// Whether the step happens sooner or later without a fault, an operator or chance.
    pub fn is_bound_to_happen(&self) -> bool {
        let by_chance = matches!(
            self,
            Step::LateWake(_)
                | Step::Deliver(_)
                | Step::Lapse
                | Step::Leave(_)
                | Step::Cancel(_)
                | Step::SendBack(_)
        );
        !self.is_fault() && !by_chance
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}", ["A", "B"][self.0], self.1 + 1)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let job = |job: &Job| format!("job {}", job + 1);
        let server = |slot: &Slot| ["A", "B"][*slot];
        let answer = |answer: &Answer| match answer {
            Answer::Heard => "",
            Answer::Lost => "; the answer is lost",
        };
        match self {
            Step::Submit(j, a) => write!(f, "a client submits {}{}", job(j), answer(a)),
            Step::Wake(s, a) => write!(f, "{} is woken by BRPOPLPUSH{}", server(s), answer(a)),
            Step::LateWake(name) => write!(f, "a late BRPOPLPUSH of {name} is carried out"),
            Step::Take(s, a) => write!(f, "{} takes{}", server(s), answer(a)),
            Step::Deliver(s) => write!(f, "{} gets the answer that was held up", server(s)),
            Step::Settle(s, j, token, what, a) => {
                write!(f, "{} settles {} (token {token}): {what:?}{}", server(s), job(j), answer(a))
            }
            Step::Again(s, j, token, a) => {
                write!(f, "{} begins the next attempt at {} (token {token}){}", server(s), job(j), answer(a))
            }
            Step::Beat(s) => write!(f, "{} beats and looks at the others", server(s)),
            Step::Rejoin(s) => write!(f, "{} enters under a new name", server(s)),
            Step::TakeOver(s, dead, a) => write!(f, "{} takes over {dead}{}", server(s), answer(a)),
            Step::Look(s) => write!(f, "{} looks for what it does not know of", server(s)),
            Step::Recover(s) => write!(f, "{} puts back what it did not know of", server(s)),
            Step::Promote(s, j) => write!(f, "the time of {} comes, {} moves it", job(j), server(s)),
            Step::LimitDue(s) => write!(f, "{} looks at the limit in time", server(s)),
            Step::Lapse => write!(f, "the places that were kept lapse"),
            Step::Crash(s) => write!(f, "{} crashes", server(s)),
            Step::Kill(s, j) => write!(f, "{} kills {}", job(j), server(s)),
            Step::Pause(s) => write!(f, "{} is paused", server(s)),
            Step::Resume(s) => write!(f, "{} goes on", server(s)),
            Step::Start(s) => write!(f, "{} is started again", server(s)),
            Step::Leave(s) => write!(f, "{} stops in order", server(s)),
            Step::Cancel(j) => write!(f, "a person cancels {}", job(j)),
            Step::SendBack(j) => write!(f, "a person sends back {}", job(j)),
            Step::Pull(a) => write!(f, "pull workers take{}", answer(a)),
            Step::PullFetched(s, a) => write!(f, "{} gives its job to pull workers{}", server(s), answer(a)),
            Step::Report(j, token) => write!(f, "a pull worker reports on {} (token {token})", job(j)),
            Step::Reply(j, token, what, a) => {
                write!(f, "a pull worker answers {} (token {token}): {what:?}{}", job(j), answer(a))
            }
            Step::LeaseEnd(j) => write!(f, "the lease of {} ends", job(j)),
        }
    }
}
