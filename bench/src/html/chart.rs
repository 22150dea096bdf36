//! Lines over time or load, drawn as SVG.

use std::borrow::Cow;

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Drawn size, in the drawing's own units; pages scale it to their width.
const SIZE: (u32, u32) = (560, 270);
/// Height of text, in the drawing's units; backends draw it a little smaller.
const FONT: u32 = 15;
/// Lines with fewer points show each as a dot.
const DOTS_MAX: usize = 12;
/// Colours that people with any colour vision can tell apart (Okabe and Ito, 2008), in order of use.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];
const TEXT: RGBColor = RGBColor(66, 74, 83);
const GRID: RGBColor = RGBColor(226, 229, 232);
const GRID_FINE: RGBColor = RGBColor(243, 244, 246);

/// What the drawing backend may say; in memory it has no reason to.
type DrawFault = DrawingAreaErrorKind<std::io::Error>;

/// One line of a chart.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    pub(super) fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points }
    }
}

/// Lines with a title and named axes, units included.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    x: Cow<'static, str>,
    y: Cow<'static, str>,
    logarithmic: bool,
    scattered: bool,
    lines: Vec<Line>,
}

impl Chart {
    pub(super) fn new(
        title: impl Into<String>,
        x: impl Into<Cow<'static, str>>,
        y: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (title, x, y) = (title.into(), x.into(), y.into());
        Self { title, x, y, logarithmic: false, scattered: false, lines: Vec::new() }
    }

    /// Points are not joined.
    pub(super) fn scattered(mut self) -> Self {
        self.scattered = true;
        self
    }

    /// The vertical axis is logarithmic; values of zero or less are left out.
    pub(super) fn logarithmic(mut self) -> Self {
        self.logarithmic = true;
        self
    }

    pub(super) fn line(mut self, mut line: Line) -> Self {
        let logarithmic = self.logarithmic;
        line.points.retain(|(x, y)| x.is_finite() && y.is_finite() && (!logarithmic || *y > 0.0));
        if !line.points.is_empty() {
            self.lines.push(line);
        }
        self
    }

    pub(super) fn lines(self, lines: impl IntoIterator<Item = Line>) -> Self {
        lines.into_iter().fold(self, Self::line)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn colored_lines(&self) -> impl Iterator<Item = (&Line, RGBColor)> {
        self.lines.iter().zip(COLORS.iter().copied().cycle())
    }

    /// The drawing.
    pub(super) fn to_svg(&self) -> String {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
            .expect("drawing into memory cannot fail");
        text
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), DrawFault> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) = points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
        let (low, high) = points().fold((f64::MAX, f64::MIN), |(low, high), (_, y)| (low.min(*y), high.max(*y)));
        let left = left.min(0.0);
        let right = if right > left { right } else { left + 1.0 };
        let mut builder = ChartBuilder::on(area);
        builder.margin(6).margin_right(16).x_label_area_size(46).y_label_area_size(66);
        if self.logarithmic {
            let decade = |exponent: f64| 10_f64.powf(exponent);
            let bottom = low.log10().floor();
            let top = high.log10().ceil().max(bottom + 1.0);
            let range = (decade(bottom)..decade(top)).log_scale();
            self.draw_lines(builder.build_cartesian_2d(left..right, range)?)
        } else {
            let top = if high > 0.0 { high * 1.08 } else { 1.0 };
            self.draw_lines(builder.build_cartesian_2d(left..right, 0.0..top)?)
        }
    }

    fn draw_lines<'a, Y>(
        &self,
        mut context: ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    ) -> Result<(), DrawFault>
    where
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let font = ("sans-serif", FONT).into_font().color(&TEXT);
        context
            .configure_mesh()
            .disable_x_mesh()
            .y_max_light_lines(if self.logarithmic { 8 } else { 1 })
            .bold_line_style(GRID)
            .light_line_style(GRID_FINE)
            .axis_style(TEXT.mix(0.5))
            .label_style(font.clone())
            .axis_desc_style(font)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|value| label(*value))
            .y_label_formatter(&|value| label(*value))
            .x_desc(&*self.x)
            .y_desc(&*self.y)
            .draw()?;
        for (line, color) in self.colored_lines() {
            if !self.scattered {
                context.draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?;
            }
            if self.scattered || line.points.len() <= DOTS_MAX {
                let dots = line.points.iter().map(|point| Circle::new(*point, 3, color.filled()));
                context.draw_series(dots)?;
            }
        }
        Ok(())
    }
}

/// A colour as style sheets write it.
pub(super) fn css(RGBColor(red, green, blue): RGBColor) -> String {
    format!("rgb({red},{green},{blue})")
}

/// A number as short as it can be told.
fn label(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000_000.0 {
        format!("{} M", short(value / 1_000_000.0))
    } else if size >= 10_000.0 {
        format!("{} k", short(value / 1_000.0))
    } else {
        short(value)
    }
}

/// Up to three decimals, without trailing zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_short_as_they_can_be() {
        for (value, text) in
            [(0.0, "0"), (0.125, "0.125"), (2.5, "2.5"), (9_999.0, "9999"), (12_500.0, "12.5 k"), (3e6, "3 M")]
        {
            assert_eq!(label(value), text);
        }
    }

    #[test]
    fn any_points_can_be_drawn() {
        for points in [vec![(0.0, 0.0)], vec![(5.0, 1e9), (5.0, 1e-3)], vec![(0.0, f64::NAN), (1.0, 2.0)]] {
            for chart in [Chart::new("t", "x", "y"), Chart::new("t", "x", "y").logarithmic()] {
                let chart = chart.line(Line::new("l", points.clone()));
                assert!(chart.is_empty() || chart.to_svg().contains("</svg>"));
            }
        }
    }
}
