//! Reports as pages to look at: one self-contained file each, with its style and drawings inside.

mod chart;
mod load;
mod prove;
mod scale;
mod strategies;

use std::fmt::Write as _;

use chart::Chart;

pub use load::load_page;
pub use prove::{COLUMNS as PROVE_COLUMNS, cells as prove_cells, memory_growth as prove_memory_growth, prove_page};
pub use scale::{COLUMNS as SCALE_COLUMNS, cells as scale_cells, scale_page};
pub use strategies::{STRATEGY_COLUMNS, row_cells, strategies_page};

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 1120px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .25rem; }
p.about { color: #59636e; margin: .25rem 0 1.25rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 1.75rem 1.5rem; margin-top: 1.75rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem 1.4rem .28rem 0; border-bottom: 1px solid #e6e8eb; vertical-align: top; }
th { font-weight: 600; } .rows td, .rows th { text-align: right; } .rows :is(td, th):first-child { text-align: left; } .rows td { white-space: nowrap; } .rows.named :is(td, th):nth-child(2) { text-align: left; } .wide { overflow-x: auto; margin: 1rem 0; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; color: #424a53; font-size: .85rem; }
.legend i { display: inline-block; width: 1.1rem; height: 0; border-top: 3px solid; margin-right: .4rem; vertical-align: .25em; }
svg { width: 100%; height: auto; display: block; }
.good { color: #1a7f37; font-weight: 600; } .bad { color: #c1121f; font-weight: 600; }
";

/// A page in the making.
struct Page {
    body: String,
}

impl Page {
    fn new(title: &str, about: &str) -> Self {
        Self { body: format!("<h1>{}</h1>\n<p class=\"about\">{}</p>\n", escape(title), escape(about)) }
    }

    fn verdict(&mut self, good: bool, text: &str) {
        let class = if good { "good" } else { "bad" };
        self.push(format_args!("<p class=\"{class}\">{}</p>\n", escape(text)));
    }

    /// A name and its value in each row.
    fn facts(&mut self, facts: &[(&str, String)]) {
        self.body.push_str("<table>\n");
        for (name, value) in facts {
            self.push(format_args!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value)));
        }
        self.body.push_str("</table>\n");
    }

    /// A table of numbers under a heading of its own.
    fn rows(&mut self, heading: &str, names: &[&str], rows: &[Vec<String>]) {
        self.table("rows", heading, names, rows);
    }

    /// The same where the second column has words, too.
    fn named_rows(&mut self, heading: &str, names: &[&str], rows: &[Vec<String>]) {
        self.table("rows named", heading, names, rows);
    }

    fn table(&mut self, class: &str, heading: &str, names: &[&str], rows: &[Vec<String>]) {
        self.push(format_args!("<div class=\"wide\"><h2>{}</h2><table class=\"{class}\">\n", escape(heading)));
        self.row("th", names);
        for row in rows {
            self.row("td", row);
        }
        self.body.push_str("</table></div>\n");
    }

    fn row(&mut self, cell: &str, values: &[impl AsRef<str>]) {
        let cells: String = values.iter().map(|value| format!("<{cell}>{}</{cell}>", escape(value.as_ref()))).collect();
        self.push(format_args!("<tr>{cells}</tr>\n"));
    }

    /// Drawings side by side; those without anything to show are left out.
    fn charts(&mut self, charts: &[Chart]) {
        self.body.push_str("<div class=\"charts\">\n");
        for chart in charts.iter().filter(|chart| !chart.is_empty()) {
            self.push(format_args!("<section><h2>{}</h2><div class=\"legend\">", escape(&chart.title)));
            for (line, color) in chart.colored_lines() {
                let color = chart::css(color);
                self.push(format_args!("<span><i style=\"border-color:{color}\"></i>{}</span>", escape(&line.name)));
            }
            self.push(format_args!("</div>\n{}</section>\n", chart.to_svg()));
        }
        self.body.push_str("</div>\n");
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.body.write_fmt(text).expect("writing to memory cannot fail");
    }

    fn finish(self, title: &str) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n{STYLE}</style></head>\n\
             <body>\n{}</body></html>\n",
            escape(title),
            self.body
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup_and_nothing_is_loaded_from_elsewhere() {
        let mut page = Page::new("a <b>", "c & d");
        page.facts(&[("name", "<script>".to_owned())]);
        let line = chart::Line::new("e > f", vec![(0.0, 1.0), (1.0, 20.0)]);
        page.charts(&[Chart::new("nothing", "time, s", "rate, 1/s"), Chart::new("one", "x", "y").line(line)]);
        let text = page.finish("t");
        assert!(text.contains("a &lt;b&gt;") && text.contains("&lt;script&gt;") && text.contains("e &gt; f"));
        assert!(!text.contains("<script") && !text.contains("src=") && !text.contains("href="));
        assert_eq!(text.matches("<svg").count(), 1, "a chart without a line is left out");
    }
}
