//! Figures of several rounds, and how they are printed.

use std::fmt;

/// The percentile of the figures; `part` is from 0 to 1.
pub fn percentile(figures: &mut [f64], part: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[((figures.len() - 1) as f64 * part).round() as usize]
}

/// One figure per round.
#[derive(Clone, Default, Debug)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub fn median(&self) -> f64 {
        let mut figures = self.0.clone();
        figures.sort_by(f64::total_cmp);
        let last = figures.len() - 1;
        (figures[last / 2] + figures[last.div_ceil(2)]) / 2.0
    }

    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// These figures divided by the other ones, round by round.
    pub fn ratio(&self, other: &Rounds) -> Rounds {
        Rounds(self.0.iter().zip(&other.0).map(|(this, other)| this / other).collect())
    }

    /// The larger figure, round by round.
    pub fn best(&self, other: &Rounds) -> Rounds {
        Rounds(self.0.iter().zip(&other.0).map(|(this, other)| this.max(*other)).collect())
    }
}

impl fmt::Display for Rounds {
    /// The median, the smallest and the largest figure; whole numbers, or two decimals below 100.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = |figure: f64| match figure {
            figure if figure < 100.0 => format!("{figure:.2}"),
            figure => format!("{figure:.0}"),
        };
        match self.0.len() {
            0 => f.pad("-"),
            1 => f.pad(&number(self.0[0])),
            _ => f.pad(&format!(
                "{} ({} to {})",
                number(self.median()),
                number(self.min()),
                number(self.max())
            )),
        }
    }
}

/// Prints one line with the percentiles of these ms.
pub fn print_latencies(what: &str, ms: &mut [f64]) {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| percentile(ms, part));
    let max = percentile(ms, 1.0);
    println!(
        "{what:<52} p50 {p50:>7.3}  p99 {p99:>7.3}  p99.9 {p999:>7.3}  max {max:>8.3} ms  ({})",
        ms.len()
    );
}
