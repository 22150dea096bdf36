//! Drawings over the time of a run: several rows above one another, all with one axis.

use std::fmt::Write as _;

/// Width of a drawing, in its own units.
const WIDTH: f64 = 1_120.0;
/// Room for names on the left, and for the last label on the right.
const LEFT: f64 = 150.0;
const RIGHT: f64 = 20.0;
/// Room for the axis below.
const AXIS: f64 = 26.0;
/// Between two rows.
const GAP: f64 = 14.0;
/// Height of one lane of bars.
const LANE: f64 = 15.0;

/// Text that cannot become markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A time with a colour and what a pointer over it is told.
pub(super) struct Bar {
    pub(super) begin: f64,
    pub(super) end: f64,
    pub(super) color: &'static str,
    pub(super) told: String,
}

/// A line over time.
pub(super) struct Line {
    pub(super) points: Vec<(f64, f64)>,
    pub(super) color: &'static str,
    /// Whether the space below it is filled.
    pub(super) filled: bool,
}

/// Values up the side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten, from one.
    Logarithmic,
}

/// A drawing in the making.
pub(super) struct Drawing {
    seconds: f64,
    body: String,
    bottom: f64,
    /// Bands that stand behind every row of lines.
    bands: Vec<Bar>,
}

impl Drawing {
    /// An empty drawing of so many seconds.
    pub(super) fn new(seconds: f64, bands: Vec<Bar>) -> Self {
        Self { seconds: seconds.max(1.0), body: String::new(), bottom: 4.0, bands }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.body.write_fmt(text).expect("writing to memory cannot fail");
        self.body.push('\n');
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn rectangle(&mut self, (begin, end): (f64, f64), (top, height): (f64, f64), color: &str, told: &str) {
        let (left, right) = (self.x(begin), self.x(end));
        let width = (right - left).max(1.5);
        let told = escape(told);
        self.push(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\">\
             <title>{told}</title></rect>"
        ));
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        self.push(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    /// A row of lines with a scale of its own, before the bands.
    pub(super) fn lines(&mut self, name: &str, unit: &str, height: f64, scale: Scale, lines: &[Line]) {
        let (top, bottom) = (self.bottom + GAP, self.bottom + GAP + height);
        for (begin, end, color) in self.bands.iter().map(|band| (band.begin, band.end, band.color)).collect::<Vec<_>>()
        {
            let (left, right) = (self.x(begin), self.x(end));
            let width = (right - left).max(1.0);
            self.push(format_args!(
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\" \
                 opacity=\"0.16\"/>"
            ));
        }
        let values = lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
        let greatest = nice(values.fold(1.0, f64::max), scale);
        let height_of = |value: f64| match scale {
            Scale::Linear => value / greatest,
            Scale::Logarithmic => value.max(1.0).log10() / greatest.log10().max(0.3),
        };
        let y = |value: f64| bottom - height * height_of(value).clamp(0.0, 1.0);
        for mark in marks(greatest, scale) {
            let (at, right) = (y(mark), WIDTH - RIGHT);
            self.push(format_args!(
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>"
            ));
            self.label(LEFT - 6.0, at + 4.0, "end", &format!("{mark}"));
        }
        self.label(4.0, top + height / 2.0 - 4.0, "start", name);
        self.label(4.0, top + height / 2.0 + 10.0, "start", unit);
        for line in lines {
            let points: String = line.points.iter().fold(String::new(), |mut text, (at, value)| {
                write!(text, "{:.1},{:.1} ", self.x(*at), y(*value)).expect("writing to memory cannot fail");
                text
            });
            let color = line.color;
            if let (true, Some((first, _)), Some((last, _))) = (line.filled, line.points.first(), line.points.last()) {
                let (first, last) = (self.x(*first), self.x(*last));
                self.push(format_args!(
                    "<polygon points=\"{first:.1},{bottom:.1} {points}{last:.1},{bottom:.1}\" fill=\"{color}\" \
                     opacity=\"0.35\"/>"
                ));
            }
            self.push(format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.4\"/>"
            ));
        }
        self.bottom = bottom;
    }

    /// A lane of bars with a name.
    pub(super) fn lane(&mut self, name: &str, bars: &[Bar], ticks: &[f64]) {
        let top = self.bottom + 3.0;
        self.label(LEFT - 8.0, top + LANE - 4.0, "end", name);
        let (left, width) = (LEFT, WIDTH - LEFT - RIGHT);
        self.push(format_args!(
            "<rect x=\"{left}\" y=\"{top:.1}\" width=\"{width}\" height=\"{LANE}\" class=\"empty\"/>"
        ));
        for bar in bars {
            self.rectangle((bar.begin, bar.end), (top, LANE), bar.color, &bar.told);
        }
        for tick in ticks {
            let (x, end) = (self.x(*tick), top + LANE);
            self.push(format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{end:.1}\" class=\"tick\"/>"
            ));
        }
        self.bottom = top + LANE;
    }

    /// Room before a group of lanes, with its heading.
    pub(super) fn heading(&mut self, text: &str) {
        self.bottom += GAP + 12.0;
        let y = self.bottom;
        self.push(format_args!("<text x=\"4\" y=\"{y:.1}\" class=\"heading\">{}</text>", escape(text)));
        self.bottom += 3.0;
    }

    /// The drawing with its axis.
    pub(super) fn finish(mut self) -> String {
        let bottom = self.bottom + 4.0;
        let step = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0]
            .into_iter()
            .find(|step| self.seconds / step <= 16.0)
            .unwrap_or(7_200.0);
        let mut at = 0.0;
        while at <= self.seconds {
            let x = self.x(at);
            let end = bottom + 4.0;
            self.push(format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom:.1}\" y2=\"{end:.1}\" class=\"axis\"/>"
            ));
            self.label(x, bottom + 17.0, "middle", &format!("{at} s"));
            at += step;
        }
        let height = bottom + AXIS;
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" xmlns=\"http://www.w3.org/2000/svg\">\n{}</svg>\n",
            self.body
        )
    }
}

/// A round number that is not smaller.
fn nice(value: f64, scale: Scale) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    match scale {
        Scale::Logarithmic => 10_f64.powf(value.log10().ceil()).max(10.0),
        Scale::Linear => [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|nice| *nice >= value)
            .unwrap_or(value),
    }
}

fn marks(greatest: f64, scale: Scale) -> Vec<f64> {
    match scale {
        Scale::Linear => [0.0, 0.5, 1.0].map(|part| part * greatest).to_vec(),
        Scale::Logarithmic => {
            let mut marks = vec![1.0];
            while marks.last().is_some_and(|mark| *mark < greatest) {
                marks.push(marks.last().copied().unwrap_or(1.0) * 10.0);
            }
            marks
        }
    }
}
