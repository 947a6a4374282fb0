//! What the API shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::common::Client;
use crate::make::{COUNTED, Made};
use crate::report::Report;

const STATUSES: [&str; 7] =
    ["queued", "processing", "scheduled", "retrying", "completed", "failed", "cancelled"];

/// A job of a listing.
pub struct Row {
    pub id: u64,
    pub status: String,
    pub job_type: String,
    pub attempts: u64,
    pub finished_at: String,
}

/// Samples of each status, as version 0.4.0 shows them.
pub fn samples(client: &mut Client) -> BTreeMap<u64, Value> {
    let mut ids = BTreeSet::new();
    for status in STATUSES {
        for page in [1, 3, 20] {
            let listing = client.json("GET", &format!("/jobs?status={status}&limit=40&page={page}"), "");
            ids.extend(listing["jobs"].as_array().expect("jobs").iter().filter_map(|job| job["id"].as_u64()));
        }
    }
    for job_type in ["exit", "sleep", "panic"].into_iter().chain(COUNTED) {
        let listing = client.json("GET", &format!("/jobs?limit=40&type={}", escaped(job_type)), "");
        ids.extend(listing["jobs"].as_array().expect("jobs").iter().filter_map(|job| job["id"].as_u64()));
    }
    ids.into_iter().map(|id| (id, client.json("GET", &format!("/jobs/{id}"), ""))).collect()
}

/// Every field that version 0.4.0 showed must be the same.
pub fn compare(client: &mut Client, before: &BTreeMap<u64, Value>, report: &mut Report) {
    for (id, old) in before {
        let new = client.json("GET", &format!("/jobs/{id}"), "");
        for (field, value) in old.as_object().expect("a job") {
            let is_same = match field.as_str() {
                "errors" => same_errors(value, &new[field]),
                _ => new[field] == *value,
            };
            report.check(is_same, || format!("{field} of job {id} was {value} and is {}", new[field]));
        }
    }
}

/// Later versions show more of an error.
fn same_errors(old: &Value, new: &Value) -> bool {
    let (old, new) = (old.as_array().expect("errors"), new.as_array().expect("errors"));
    let is_same = |(old, new): (&Value, &Value)| {
        old.as_object().expect("an error").iter().all(|(field, value)| new[field] == *value)
    };
    old.len() == new.len() && old.iter().zip(new).all(is_same)
}

/// All jobs of a listing by `next`, newest first; every page must have the right total.
pub fn walk(client: &mut Client, filter: &str, report: &mut Report) -> Vec<Row> {
    let (mut rows, mut totals, mut next): (Vec<Row>, BTreeSet<u64>, Option<u64>) = Default::default();
    loop {
        let before = next.map_or(String::new(), |id| format!("&before={id}"));
        let page = client.json("GET", &format!("/jobs?limit=100{filter}{before}"), "");
        totals.extend(page["total"].as_u64());
        for job in page["jobs"].as_array().expect("jobs") {
            let text = |field: &str| job[field].as_str().unwrap_or_default().to_owned();
            rows.push(Row {
                id: job["id"].as_u64().expect("an id"),
                status: text("status"),
                job_type: text("type"),
                attempts: job["attempts"].as_u64().unwrap_or(0),
                finished_at: text("finished_at"),
            });
        }
        next = page["next"].as_u64();
        if next.is_none() {
            break;
        }
    }
    let is_sorted = rows.windows(2).all(|pair| pair[0].id > pair[1].id);
    report.check(is_sorted, || format!("the listing {filter:?} repeats a job or is out of order"));
    report.check(totals.len() <= 1 && totals.iter().all(|total| *total == rows.len() as u64), || {
        format!("the listing {filter:?} has {} jobs and the totals {totals:?}", rows.len())
    });
    rows
}

/// The listings of all jobs, of each status and of each type agree with each other and with what was submitted.
pub fn listings(client: &mut Client, ids: &BTreeSet<u64>, report: &mut Report) {
    let all = walk(client, "", report);
    let listed: BTreeSet<u64> = all.iter().map(|row| row.id).collect();
    let lost: Vec<_> = ids.difference(&listed).take(5).collect();
    let unknown: Vec<_> = listed.difference(ids).take(5).collect();
    report.check(lost.is_empty(), || format!("jobs that no listing shows: {lost:?}"));
    report.check(unknown.is_empty(), || format!("jobs that were not submitted: {unknown:?}"));
    let counts = client.json("GET", "/stats", "")["counts"].clone();
    let types: BTreeSet<&str> = all.iter().map(|row| row.job_type.as_str()).collect();
    let mut pages = all.len().div_ceil(100);
    let mut compare = |filter: String, is_in: &dyn Fn(&Row) -> bool| {
        let wanted: Vec<u64> = all.iter().filter(|row| is_in(row)).map(|row| row.id).collect();
        let found: Vec<u64> = walk(client, &filter, report).iter().map(|row| row.id).collect();
        pages += found.len().div_ceil(100);
        report.check(found == wanted, || {
            format!("the listing {filter:?} has {} jobs, not {}", found.len(), wanted.len())
        });
    };
    for status in STATUSES {
        compare(format!("&status={status}"), &|row| row.status == status);
    }
    for job_type in &types {
        compare(format!("&type={}", escaped(job_type)), &|row| row.job_type == *job_type);
        for status in ["completed", "queued", "failed"] {
            let filter = format!("&status={status}&type={}", escaped(job_type));
            compare(filter, &|row| row.status == status && row.job_type == *job_type);
        }
    }
    report.row("pages of listings with every job once", pages);
    for status in STATUSES {
        let number = all.iter().filter(|row| row.status == status).count();
        report
            .check(counts[status] == number, || format!("/stats: {} {status}, not {number}", counts[status]));
    }
}

/// The program of each of these jobs has written the job's id once; twice at most if its server was killed.
pub fn runs(file: &Path, made: &Made, was_killed: bool, report: &mut Report) {
    let mut runs: BTreeMap<u64, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(file).expect("a file").lines() {
        *runs.entry(line.parse().expect("an id")).or_default() += 1;
    }
    for id in made.counted.iter().chain(runs.keys()) {
        let number = runs.get(id).copied().unwrap_or(0);
        let is_right = made.counted.contains(id) && (number == 1 || (was_killed && number == 2));
        report.check(is_right, || format!("job {id} ran {number} times"));
    }
    let twice = runs.values().filter(|number| **number > 1).count();
    report.row("jobs whose runs were counted; ran twice", format!("{} {twice}", runs.len()));
}

/// A text in the query of a URL.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
