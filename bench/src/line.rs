//! Straight lines through measured points.

/// A straight line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    /// Its value at zero.
    pub(crate) at_zero: f64,
    /// How much it rises per step.
    pub(crate) slope: f64,
}

impl Line {
    /// The line with the smallest squared errors relative to the values, so that small ones count as much as large ones.
    /// `None` with fewer than two different places; values that are not positive are left out.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let points: Vec<(f64, f64, f64)> =
            points.iter().filter(|(_, y)| *y > 0.0).map(|(x, y)| (*x, *y, 1.0 / (y * y))).collect();
        let sum = |value: &dyn Fn(&(f64, f64, f64)) -> f64| points.iter().map(value).sum::<f64>();
        let weight = sum(&|point| point.2);
        let (x, y) = (sum(&|point| point.2 * point.0) / weight, sum(&|point| point.2 * point.1) / weight);
        let spread = sum(&|point| point.2 * (point.0 - x) * (point.0 - x));
        let slope = sum(&|point| point.2 * (point.0 - x) * (point.1 - y)) / spread;
        let line = Self { at_zero: y - slope * x, slope };
        (line.at_zero.is_finite() && line.slope.is_finite()).then_some(line)
    }

    /// The largest deviation of a point from the line, in percent of the point.
    pub(crate) fn largest_deviation_percent(&self, points: &[(f64, f64)]) -> f64 {
        let deviation = |(x, y): &(f64, f64)| ((self.at_zero + self.slope * x - y) / y).abs() * 100.0;
        points.iter().map(deviation).fold(0.0, f64::max)
    }
}
