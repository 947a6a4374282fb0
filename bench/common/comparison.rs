//! The figures of one or two programs, which take turns: `--program` and `--against`.

use std::path::{Path, PathBuf};

use super::{Rounds, flag, server};

/// The figures of one program, one per round.
pub trait Cost: Default {
    /// The names of the figures and the figures.
    fn rows(&self) -> Vec<(&'static str, &Rounds)>;
}

/// The programs that take turns, each with its figures.
pub struct Comparison<C>(Vec<(PathBuf, C)>);

impl<C: Cost> Comparison<C> {
    /// The program to measure, and the program of `--against`, if it is set.
    pub fn of_flags() -> Comparison<C> {
        let against: PathBuf = flag("against", PathBuf::new());
        let against = (!against.as_os_str().is_empty()).then_some(against);
        let programs = [server::program()].into_iter().chain(against);
        Comparison(programs.map(|program| (program, C::default())).collect())
    }

    /// Measures one round of each program.
    pub fn round(&mut self, mut measure: impl FnMut(&Path, &mut C)) {
        self.0.iter_mut().for_each(|(program, cost)| measure(program, cost));
    }

    /// Prints the figures of each program, and the ratios of two programs. Each title begins with `title`.
    pub fn print(&self, title: &str) {
        for (program, cost) in &self.0 {
            println!("\n{title}{}", program.display());
            cost.rows().iter().for_each(|(what, rounds)| println!("  {what:<34} {rounds}"));
        }
        if let [(_, this), (_, other)] = &self.0[..] {
            println!("\n{title}the first program divided by the second");
            for ((what, this), (_, other)) in this.rows().iter().zip(other.rows()) {
                println!("  {what:<34} {}", this.ratio(other));
            }
        }
    }
}
