//! The table of one upgrade, and the checks that failed.

use std::fmt::Display;
use std::time::Instant;

#[derive(Default)]
pub struct Report {
    rows: Vec<(String, String)>,
    checks: usize,
    wrong: Vec<String>,
}

impl Report {
    pub fn row(&mut self, what: &str, value: impl Display) {
        self.rows.push((what.to_owned(), value.to_string()));
    }

    pub fn time(&mut self, what: &str, begin: Instant) {
        self.row(what, format!("{:.1} s", begin.elapsed().as_secs_f64()));
    }

    pub fn check(&mut self, is_right: bool, wrong: impl FnOnce() -> String) {
        self.checks += 1;
        if !is_right {
            self.wrong.push(wrong());
        }
    }

    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }

    pub fn print(&self, way: &str) {
        println!("\nupgrade by the way {way}");
        self.rows.iter().for_each(|(what, value)| println!("  {what:<46} {value}"));
        println!("  {:<46} {} of {}", "failed checks", self.wrong.len(), self.checks);
        self.wrong.iter().take(20).for_each(|sentence| println!("  WRONG: {sentence}"));
    }
}
