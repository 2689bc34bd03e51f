//! A panel: two axes, and curves between them.

use std::fmt::Write as _;

use super::scale::Scale;

/// Width and height of what is between the axes, and where it begins from above.
const PLOT: (f64, f64, f64) = (380.0, 270.0, 90.0);
/// Colours that there are.
const COLOURS: usize = 5;

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it shows.
    pub(super) name: String,
    /// Where values are.
    pub(super) scale: Scale,
}

/// A curve.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// What it shows.
    pub(super) name: String,
    /// Its points, in order.
    pub(super) points: Vec<(f64, f64)>,
    /// At some places, from where to where the value may be.
    pub(super) intervals: Vec<(f64, f64, f64)>,
}

/// A panel.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// The axis below.
    pub(super) x: Axis,
    /// The axis to the left.
    pub(super) y: Axis,
    /// What is between them.
    pub(super) curves: Vec<Curve>,
}

impl Panel {
    /// Draws it into `svg`, from `left` on, with colours from `first` on.
    pub(super) fn draw(&self, svg: &mut String, left: f64, first: usize) {
        let (width, height, top) = PLOT;
        let at = |x: f64, y: f64| {
            let (x, y) = (self.x.scale.place(x), self.y.scale.place(y));
            (left + x * width, top + (1.0 - y) * height)
        };
        let (right, bottom) = (left + width, top + height);
        for (place, label) in self.y.scale.marks() {
            let y = top + (1.0 - place) * height;
            line(svg, "grid", (left, y), (right, y));
            svg.push_str(&text((left - 6.0, y + 4.0), "text-anchor=\"end\"", &label));
        }
        for (place, label) in self.x.scale.marks() {
            let x = left + place * width;
            line(svg, "axis", (x, bottom), (x, bottom + 4.0));
            svg.push_str(&text((x, bottom + 18.0), "text-anchor=\"middle\"", &label));
        }
        line(svg, "axis", (left, bottom), (right, bottom));
        let middle = left + width / 2.0;
        svg.push_str(&text((middle, bottom + 36.0), "text-anchor=\"middle\"", &self.x.name));
        svg.push_str(&text((left, top - 10.0), "text-anchor=\"start\"", &self.y.name));
        for (number, curve) in self.curves.iter().enumerate() {
            let colour = format!("c{}", (first + number) % COLOURS);
            let points = curve.points.iter().map(|(x, y)| at(*x, *y));
            let points: Vec<_> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                "<polyline class=\"curve {colour}\" points=\"{}\"/>",
                points.join(" ")
            );
            for (x, low, high) in &curve.intervals {
                line(svg, &format!("bar {colour}"), at(*x, *low), at(*x, *high));
            }
            // What a curve of one point would not show, and what an interval is around.
            if curve.points.len() == 1 || !curve.intervals.is_empty() {
                for (x, y) in curve.points.iter().map(|(x, y)| at(*x, *y)) {
                    line(svg, &format!("bar {colour}"), (x - 4.0, y), (x + 4.0, y));
                }
            }
            // Above the plot, where no curve is: the last one lowest.
            let (x, row) = (left + 140.0, self.curves.len() - 1 - number);
            let y = top - 10.0 - 16.0 * row as f64;
            line(svg, &format!("bar {colour}"), (x, y - 4.0), (x + 24.0, y - 4.0));
            svg.push_str(&text((x + 30.0, y), "text-anchor=\"start\"", &curve.name));
        }
    }
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// A line of text; what it says is escaped.
pub(super) fn text((x, y): (f64, f64), attributes: &str, says: &str) -> String {
    let says = says.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{says}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_escaped() {
        let text = text((1.0, 2.0), "class=\"title\"", "a <b> & c");
        assert_eq!(text, "<text x=\"1.0\" y=\"2.0\" class=\"title\">a &lt;b&gt; &amp; c</text>\n");
    }

    #[test]
    fn higher_values_are_further_up_and_all_is_within_the_panel() {
        let axis = |name: &str| Axis { name: name.to_owned(), scale: Scale::from_zero(10.0) };
        let points = vec![(0.0, 0.0), (10.0, 10.0), (20.0, 99.0)];
        let intervals = vec![(5.0, 4.0, 6.0)];
        let curves = vec![Curve { name: "a".to_owned(), points, intervals }];
        let mut svg = String::new();
        Panel { x: axis("x"), y: axis("y"), curves }.draw(&mut svg, 60.0, 0);
        // From the lower left corner to the upper right one, and no further.
        assert!(svg.contains("points=\"60.0,360.0 440.0,90.0 440.0,90.0\""), "{svg}");
        assert!(svg.contains("class=\"bar c0\" x1=\"250.0\""), "{svg}");
    }
}
