//! SVG plots that are readable on a light and on a dark page.

use std::fmt::Write;

use super::Rounds;

/// A line of a plot: a figure and its spread for each place on the x axis.
pub struct Series {
    pub name: &'static str,
    pub figures: Vec<Rounds>,
}

/// A plot of rates: the y axis begins at 0, the places on the x axis have equal distances.
pub struct Plot {
    pub title: &'static str,
    pub x_label: &'static str,
    pub y_label: &'static str,
    pub places: Vec<String>,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 58.0;
/// Mid tones that colour-blind readers can distinguish.
const COLOURS: [&str; 3] = ["#3b82c4", "#d9822b", "#4d9f6a"];
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#59636e}.title{font-weight:600;font-size:15px}\
    .grid{stroke:#8b949e;stroke-opacity:.35}.axis{stroke:#8b949e}\
    @media (prefers-color-scheme:dark){text{fill:#b1bac4}}";

impl Plot {
    /// The SVG text.
    pub fn to_svg(&self) -> String {
        let figures = self.series.iter().flat_map(|series| &series.figures);
        let largest = figures.map(Rounds::max).fold(1.0, f64::max);
        let step = round_step(largest / 5.0);
        let ticks = (largest / step).ceil();
        let x =
            |place: usize| LEFT + (WIDTH - LEFT - RIGHT) * (place as f64 + 0.5) / self.places.len() as f64;
        let y = |figure: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * figure / (ticks * step);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n",
            self.title
        );
        let mut text = |x: f64, y: f64, more: &str, text: &str| {
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {more}>{text}</text>");
        };
        text(WIDTH / 2.0, 22.0, "class=\"title\" text-anchor=\"middle\"", self.title);
        text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0, "text-anchor=\"middle\"", self.x_label);
        let (middle, turn) =
            ((TOP + HEIGHT - BOTTOM) / 2.0, "text-anchor=\"middle\" transform=\"rotate(-90 18 ");
        text(18.0, middle, &format!("{turn}{middle})\""), self.y_label);
        for (place, name) in self.places.iter().enumerate() {
            text(x(place), HEIGHT - BOTTOM + 20.0, "text-anchor=\"middle\"", name);
        }
        for tick in 0..=ticks as usize {
            let figure = tick as f64 * step;
            text(LEFT - 8.0, y(figure) + 4.0, "text-anchor=\"end\"", &grouped(figure));
        }
        if self.series.len() > 1 {
            for (number, series) in self.series.iter().enumerate() {
                let fill = format!("text-anchor=\"end\" style=\"fill:{}\"", COLOURS[number % COLOURS.len()]);
                let at = HEIGHT - BOTTOM - 12.0 - 18.0 * (self.series.len() - 1 - number) as f64;
                text(WIDTH - RIGHT - 8.0, at, &fill, series.name);
            }
        }
        for tick in 0..=ticks as usize {
            let (at, class) = (y(tick as f64 * step), if tick == 0 { "axis" } else { "grid" });
            let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT);
        }
        for (number, series) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            // Shift the series sideways, so that no spread hides another.
            let x = |place: usize| x(place) + 8.0 * number as f64 - 4.0 * (self.series.len() - 1) as f64;
            let points: Vec<String> = (series.figures.iter().enumerate())
                .map(|(place, figure)| format!("{:.1},{:.1}", x(place), y(figure.median())))
                .collect();
            let points = points.join(" ");
            let line = "fill=\"none\" stroke-width=\"2\"";
            let _ = writeln!(svg, "<polyline points=\"{points}\" stroke=\"{colour}\" {line}/>");
            for (place, figure) in series.figures.iter().enumerate() {
                let (x, low, high, at) = (x(place), y(figure.min()), y(figure.max()), y(figure.median()));
                let _ = writeln!(svg, "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>");
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{at:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
            }
        }
        svg + "</svg>\n"
    }
}

/// The smallest of 1, 2, 5, 10, 20, .. that is at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(least)
}

/// `1000000` as `1,000,000`.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
