//! Results of a benchmark: printed as tables, stored as JSON, and rendered with all others as one page.

use std::{fmt::Write, fs, path::PathBuf};

use quota_gate::domain::clock::Clock;
use serde::{Deserialize, Serialize};

use super::{Scale, machine, plot, text};

/// Results of one benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    title: String,
    about: String,
    scale: Scale,
    taken_at: String,
    machine: String,
    ratios: Vec<Ratio>,
    tables: Vec<Table>,
    plots: Vec<Plot>,
}

/// A figure to quote, and its target.
#[derive(Debug, Serialize, Deserialize)]
struct Ratio {
    what: String,
    value: f64,
    target: Option<Target>,
}

/// Target of a figure.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Rows of text.
#[derive(Debug, Serialize, Deserialize)]
struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Lines over an axis.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// One axis.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) logarithmic: bool,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Section {
    pub(crate) fn new(name: &str, scale: Scale, title: &str, about: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            about: about.split_whitespace().collect::<Vec<_>>().join(" "),
            scale,
            taken_at: Clock::machine().now().format("%Y-%m-%d %H:%M UTC").to_string(),
            machine: machine::describe(),
            ratios: vec![],
            tables: vec![],
            plots: vec![],
        }
    }

    /// Adds a figure to quote.
    pub(crate) fn ratio(&mut self, what: &str, value: f64, target: Option<Target>) {
        self.ratios.push(Ratio { what: what.to_owned(), value, target });
    }

    pub(crate) fn table(&mut self, title: &str, columns: &[&str], rows: Vec<Vec<String>>) {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        self.tables.push(Table { title: title.to_owned(), columns, rows });
    }

    pub(crate) fn plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// Formats the tables for a terminal.
    pub(crate) fn to_text(&self) -> String {
        let mut lines = vec![format!("\n{} — {}", self.name, self.title)];
        for table in &self.tables {
            lines.push(format!("\n{}", table.title));
            let width = |column: usize| {
                let cells = table.rows.iter().map(|row| &row[column]).chain([&table.columns[column]]);
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            };
            for row in std::iter::once(&table.columns).chain(&table.rows) {
                let cell = |(column, cell): (usize, &String)| match column {
                    0 => format!("{cell:<width$}", width = width(0)),
                    _ => format!("  {cell:>width$}", width = width(column)),
                };
                lines.push(row.iter().enumerate().map(cell).collect());
            }
        }
        if !self.ratios.is_empty() {
            lines.push("\nratios".to_owned());
        }
        for ratio in &self.ratios {
            lines.push(format!("  {:>8}  {}{}", text::ratio(ratio.value), ratio.what, ratio.verdict()));
        }
        lines.join("\n")
    }

    /// Stores the section, and renders the page of all stored sections. Returns the path of the page.
    pub(crate) fn keep(&self) -> anyhow::Result<PathBuf> {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.json", self.name)), serde_json::to_string_pretty(self)?)?;
        for (number, drawn) in self.plots.iter().enumerate() {
            fs::write(folder.join(format!("{}-{}.svg", self.name, number + 1)), plot::svg(drawn)?)?;
        }
        let mut sections = vec![];
        for name in crate::NAMES {
            if let Ok(json) = fs::read_to_string(folder.join(format!("{name}.json"))) {
                sections.push(serde_json::from_str::<Self>(&json)?);
            }
        }
        let page = folder.join("index.html");
        fs::write(&page, page_of(&sections)?)?;
        Ok(page)
    }

    fn to_html(&self) -> anyhow::Result<String> {
        let mut html =
            format!("<section id={0}><h2>{0}: {1}</h2><p>{2}</p>", self.name, escape(&self.title), escape(&self.about));
        for table in &self.tables {
            let row = |cells: &[String], tag: &str| {
                let cells: Vec<String> = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
                format!("<tr>{}</tr>", cells.concat())
            };
            let rows: String = table.rows.iter().map(|cells| row(cells, "td")).collect();
            let head = row(&table.columns, "th");
            write!(html, "<h3>{}</h3><table><thead>{head}</thead><tbody>{rows}</tbody></table>", escape(&table.title))?;
        }
        for drawn in &self.plots {
            write!(html, "<figure>{}</figure>", plot::svg(drawn)?)?;
        }
        Ok(html
            + &format!("<p class=taken>{} · {} · {:?}</p></section>", self.taken_at, escape(&self.machine), self.scale))
    }
}

impl Ratio {
    fn verdict(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::AtLeast(target)) => format!("  (at least {target}: {})", met(self.value >= target)),
            Some(Target::AtMost(target)) => format!("  (at most {target}: {})", met(self.value <= target)),
        }
    }
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Folder of the reports.
fn folder() -> PathBuf {
    target().join("bench-report")
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("target"), PathBuf::from)
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
    table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left}.MISSED{color:#b00020;font-weight:600}.met{color:#0a7a3d}.taken{color:#666;font-size:13px}\
    figure{margin:1.5rem 0}svg{max-width:100%;height:auto}";

fn page_of(sections: &[Section]) -> anyhow::Result<String> {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>Quota gate: benchmarks</title><style>{STYLE}</style><h1>Quota gate: benchmarks</h1>\
         <p>Every benchmark starts its own real servers. The sides of a ratio alternate within one run. Each figure is the median \
         of its rounds.</p><table><thead><tr><th>figure<th>reached<th>target</tr></thead><tbody>"
    );
    for section in sections {
        for ratio in &section.ratios {
            let (target, class) = match ratio.target {
                None => (String::new(), ""),
                Some(Target::AtLeast(target)) => (format!("≥ {target}"), met(ratio.value >= target)),
                Some(Target::AtMost(target)) => (format!("≤ {target}"), met(ratio.value <= target)),
            };
            write!(
                html,
                "<tr><td><a href=#{}>{}</a><td class={class}>{}<td>{target}</tr>",
                section.name,
                escape(&ratio.what),
                text::ratio(ratio.value)
            )?;
        }
    }
    html += "</tbody></table>";
    for section in sections {
        html += &section.to_html()?;
    }
    Ok(html + "</html>\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
