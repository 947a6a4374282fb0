//! The doctor's audit: compares all lists, sets and hashes, and repairs what does not fit, while servers run.
//!
//! A scan (`scan.rs`) walks through all data in small steps, while servers change the data. So it collects
//! candidates, and an atomic script checks each candidate again; only what is wrong then is a finding. The same
//! script repairs a finding, after the same check. `lua/audit_common.lua` has the rules, `lua/repair.lua` the repairs.
//!
//! A scan needs about 16 bytes of memory per queued job, and up to 10,000 candidates that wait for their check.

mod findings;
mod scan;

use std::collections::BTreeMap;

pub use findings::{Audit, FindingKind, Findings, RememberedServer, RepairPolicy};

use super::error::Error;
use super::{Queue, keys, scripts};
use crate::sorting;

/// The most rounds of a repair. What is still wrong then is left.
const MAX_ROUNDS: usize = 10;

impl Queue {
    /// Checks all data in Redis and changes nothing. Takes a while with many jobs, and some seconds more if something
    /// is wrong that a server may be about to repair itself.
    pub fn audit(&self, policy: RepairPolicy) -> Result<Audit, Error> {
        scan::run(self, policy, false)
    }

    /// Checks all data and repairs it, in rounds, until nothing is wrong or nothing more can be repaired. Returns
    /// what was found and repaired in all rounds, and the audit of the last round.
    ///
    /// # Errors
    /// What was repaired before the error stays repaired; the next call continues.
    pub fn repair(&self, policy: RepairPolicy) -> Result<(BTreeMap<FindingKind, Findings>, Audit), Error> {
        let mut total: BTreeMap<FindingKind, Findings> = BTreeMap::new();
        for _ in 0..MAX_ROUNDS {
            let round = scan::run(self, policy, true)?;
            if round.findings.values().all(|findings| findings.repaired == 0) {
                return Ok((total, round));
            }
            for (kind, findings) in round.findings {
                total.entry(kind).or_default().merge(findings);
            }
        }
        Ok((total, self.audit(policy)?))
    }

    /// Checks that the user of Redis has all rights for an audit, or for a repair.
    ///
    /// # Errors
    /// [`Error::Denied`] with all rights that the user lacks.
    pub fn check_doctor_rights(&self, repairs: bool) -> Result<(), Error> {
        let right = |command: &str, key: &str| (command.to_owned(), format!("{}{key}", self.prefix));
        let mut rights = scripts::doctor_rights(&self.namespace, repairs);
        rights.extend([
            right("SCAN", ""),
            right("HGET", keys::SERVERS),
            right("ZCARD", keys::LOST),
            right("ZREVRANGE", keys::LOST),
        ]);
        let missing = self.missing_rights(&sorting::distinct(rights))?;
        if missing.is_empty() { Ok(()) } else { Err(Error::Denied(self.explain(&missing))) }
    }
}
