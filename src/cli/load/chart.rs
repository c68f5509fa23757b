//! Line charts as SVG: a few panels below each other, no library.

use std::fmt::Write;

/// Lines over one axis.
#[derive(Debug)]
pub struct Panel {
    pub title: String,
    /// What the horizontal axis counts.
    pub x: String,
    pub lines: Vec<Line>,
    /// Whether the vertical axis is logarithmic.
    pub log: bool,
    /// A dashed upright line.
    pub mark: Option<f64>,
}

/// One line, and its name beside it.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;
const PANEL_HEIGHT: f64 = 250.0;
/// Left, right, above and below the drawn area of a panel.
const MARGINS: (f64, f64, f64, f64) = (70.0, 190.0, 40.0, 40.0);
/// Distinct also for those who do not see red beside green.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The whole picture.
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let height = 40.0 + PANEL_HEIGHT * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut out, (MARGINS.0, 25.0), "start", title);
    for (at, panel) in panels.iter().enumerate() {
        panel.draw(&mut out, 40.0 + PANEL_HEIGHT * at as f64);
    }
    out.push_str("</svg>\n");
    out
}

/// Where values of an axis come to lie.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Where `low` and `high` are drawn.
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.log { value.max(self.low).log10() } else { value };
        let (low, high) = (scaled(self.low), scaled(self.high));
        let part = (scaled(value) - low) / (high - low).max(f64::MIN_POSITIVE);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values to write beside it.
    fn steps(&self) -> Vec<f64> {
        if self.log {
            let first = self.low.log10().round() as i32;
            let last = self.high.log10().round() as i32;
            return (first..=last).map(|power| 10_f64.powi(power)).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|it| it * power >= rough);
        let step = step.unwrap_or(10.0) * power;
        let count = (self.high / step).floor() as usize;
        (0..=count).map(|at| at as f64 * step).collect()
    }
}

impl Panel {
    fn draw(&self, out: &mut String, top: f64) {
        let (left, right, above, below) = MARGINS;
        let (bottom, end) = (top + PANEL_HEIGHT - below, WIDTH - right);
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let across = points().map(|(x, _)| x).fold(1e-9, f64::max);
        let x = Axis { low: 0.0, high: across, log: false, from: left, to: end };
        let up = points().map(|(_, y)| y).fold(1e-3, f64::max);
        let least = points().map(|(_, y)| y).filter(|y| *y > 0.0).fold(up, f64::min);
        let decade = |value: f64, up: bool| {
            let power = value.log10();
            10_f64.powf(if up { power.ceil() } else { power.floor() })
        };
        let (low, high) = match self.log {
            true => (decade(least, false), decade(up, true)),
            false => (0.0, up * 1.05),
        };
        let y = Axis { low, high, log: self.log, from: bottom, to: top + above };
        text(out, (left, top + above - 12.0), "start", &self.title);
        text(out, ((left + end) / 2.0, bottom + 32.0), "middle", &self.x);
        for step in y.steps() {
            rule(out, (left, y.place(step)), (end, y.place(step)), "#dddddd");
            text(out, (left - 6.0, y.place(step) + 4.0), "end", &number(step));
        }
        for step in x.steps() {
            text(out, (x.place(step), bottom + 16.0), "middle", &number(step));
        }
        rule(out, (left, bottom), (end, bottom), "#333333");
        if let Some(mark) = self.mark {
            let at = x.place(mark);
            rule(out, (at, bottom), (at, top + above), "#333333\" stroke-dasharray=\"4 3");
        }
        for (at, (line, colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let places = line.points.iter();
            let places = places.map(|(a, b)| format!("{:.1},{:.1}", x.place(*a), y.place(*b)));
            let places = places.collect::<Vec<_>>().join(" ");
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "<polyline points=\"{places}\" fill=\"none\" stroke=\"{colour}\" \
                 stroke-width=\"2\"/>"
            );
            let key = top + above + 8.0 + 20.0 * at as f64;
            rule(out, (end + 12.0, key), (end + 32.0, key), colour);
            text(out, (end + 38.0, key + 4.0), "start", &line.name);
        }
    }
}

fn rule(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let (x, y) = at;
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    format!("{rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_drawn_inside_its_panel_and_names_are_escaped() {
        let line = |name: &str, top: f64| Line {
            name: name.to_owned(),
            points: vec![(0.0, 0.0), (10.0, top)],
        };
        let lines = [line("a<b", 5.0), line("c", 900.0)];
        let panel = |log| Panel {
            title: "t".to_owned(),
            x: "s".to_owned(),
            lines: lines.iter().map(|it| line(&it.name, it.points[1].1)).collect(),
            log,
            mark: Some(5.0),
        };
        let svg = svg("x & y", &[panel(false), panel(true)]);
        assert!(svg.contains("a&lt;b") && svg.contains("x &amp; y") && !svg.contains("NaN"));
        let points = svg.split("points=\"").skip(1).map(|it| it.split('"').next().unwrap());
        let places: Vec<f64> =
            points.flat_map(|it| it.split([' ', ','])).map(|it| it.parse().unwrap()).collect();
        assert_eq!(places.len(), 2 * 2 * 4);
        assert!(places.iter().all(|place| (0.0..=WIDTH).contains(place)), "{places:?}");
    }

    #[test]
    fn an_empty_chart_is_a_chart_too() {
        let panel =
            Panel { title: String::new(), x: String::new(), lines: vec![], log: true, mark: None };
        assert!(!svg("", &[panel]).contains("NaN"));
    }
}
