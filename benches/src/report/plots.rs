//! One picture a goal: bars for all subjects, a panel for each variant. They are read on light and on dark pages.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text, Title};

use super::goals::{Better, Goal, Measure};
use super::{markdown, number};
use crate::results::{Kind, Results, Row};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 16.0;
/// For the names of subjects.
const NAMES: f64 = 250.0;
/// For figures behind the bars.
const FIGURES: f64 = 190.0;
const HEADING: f64 = 48.0;
const PANEL_HEADING: f64 = 46.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;

/// Grey is the machine, blue is ours. The text has the colour of the page's theme, and the ground is the page's.
const STYLE: &str = "text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .variant { font-weight: 600 } .axis { font-size: 12px; fill: #59636e }
.figure { font-size: 12px } .ours { fill: #0969da } .peer { fill: #afb8c1 } .limit { fill: #6e7781 }
.name-ours { font-weight: 600 } .spread { stroke: #1f2328; stroke-width: 1.5 } .ground { fill: none }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .axis { fill: #9198a1 } .ours { fill: #58a6ff }
.peer { fill: #484f58 } .limit { fill: #8b949e } .spread { stroke: #e6edf3 } }";

/// Beside the page.
pub(super) fn file_name(goal: &Goal) -> String {
    let title: String = goal.title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == ' ').collect();
    let short: Vec<_> = title.split_whitespace().collect();
    format!("{}-{}.svg", goal.id, short.join("-"))
}

/// None when nothing of it was measured.
pub(super) fn picture(goal: &Goal, results: &Results) -> Option<String> {
    let panels: Vec<_> =
        goal.variants(results).into_iter().filter_map(|variant| panel_of(goal, variant, results)).collect();
    if panels.is_empty() {
        return None;
    }
    let height = HEADING + panels.iter().map(Panel::height).sum::<f64>() + MARGIN;
    let title = format!("{}: {}", goal.id, goal.title);
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH as i32, height.ceil() as i32))
        .set("role", "img")
        .add(Title::new(&title))
        .add(Style::new(STYLE))
        .add(text(&title, MARGIN, 28.0, "title"));
    let mut top = HEADING;
    for panel in panels {
        document = document.add(panel.draw(top));
        top += panel.height();
    }
    Some(format!("{document}\n"))
}

/// The subjects of one variant, the best first.
struct Panel<'a> {
    variant: &'a str,
    measure: Measure,
    rows: Vec<&'a Row>,
}

fn panel_of<'a>(goal: &Goal, variant: &'a str, results: &'a Results) -> Option<Panel<'a>> {
    let rows: Vec<_> = goal.rows(results).into_iter().filter(|row| row.variant == variant).collect();
    let measure = goal.measure(&rows)?;
    let mut rows = markdown::sorted(&rows, Some(measure));
    rows.retain(|row| row.measures.contains_key(measure.name));
    Some(Panel { variant, measure, rows })
}

impl Panel<'_> {
    fn height(&self) -> f64 {
        PANEL_HEADING + self.rows.len() as f64 * ROW + MARGIN
    }

    fn draw(&self, top: f64) -> Group {
        let direction = if self.measure.better == Better::More { "more is better" } else { "less is better" };
        let axis = format!("{} ({direction})", number::title(self.measure.name));
        let mut group = Group::new().add(text(self.variant, MARGIN, top + 16.0, "variant")).add(text(
            &axis,
            MARGIN,
            top + 34.0,
            "axis",
        ));
        let longest = self.rows.iter().map(|row| self.spread(row).high).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - NAMES - FIGURES - 2.0 * MARGIN) / longest;
        for (index, row) in self.rows.iter().enumerate() {
            group = group.add(self.bar(row, top + PANEL_HEADING + index as f64 * ROW, scale));
        }
        group
    }

    fn bar(&self, row: &Row, top: f64, scale: f64) -> Group {
        let class = match row.kind {
            Kind::Ours => "ours",
            Kind::Peer => "peer",
            Kind::Limit => "limit",
        };
        let spread = self.spread(row);
        let (left, middle) = (MARGIN + NAMES, top + ROW / 2.0);
        let name = if row.kind == Kind::Limit { format!("{} (limit)", row.subject) } else { row.subject.clone() };
        let bar = Rectangle::new()
            .set("x", round(left))
            .set("y", round(middle - BAR / 2.0))
            .set("width", round((spread.median * scale).max(1.0)))
            .set("height", BAR)
            .set("class", class);
        let reach = Line::new()
            .set("x1", round(left + spread.low * scale))
            .set("x2", round(left + spread.high * scale))
            .set("y1", round(middle))
            .set("y2", round(middle))
            .set("class", "spread");
        let figure = number::spread(&spread, row.repeats);
        let mut group = Group::new()
            .add(text(&name, left - 8.0, middle + 4.5, &format!("name-{class}")).set("text-anchor", "end"))
            .add(bar);
        if row.repeats > 1 {
            group = group.add(reach);
        }
        group.add(text(&figure, left + spread.high * scale + 8.0, middle + 4.5, "figure"))
    }

    fn spread(&self, row: &Row) -> crate::results::Spread {
        row.measures[self.measure.name] // those without it are not in the panel
    }
}

fn text(content: &str, x: f64, y: f64, class: &str) -> Text {
    Text::new(content).set("x", round(x)).set("y", round(y)).set("class", class)
}

/// A tenth of a pixel is enough, and keeps the files readable.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::goals::GOALS;
    use super::*;

    #[test]
    fn a_picture_has_a_bar_for_each_subject_that_was_measured() {
        let svg = picture(&GOALS[0], &fixture()).unwrap();
        assert_eq!(svg.matches("<rect").count(), 4, "{svg}");
        assert_eq!(svg.matches("class=\"ours\"").count(), 1);
        assert!(svg.contains("messages per CPU second (more is better)"));
        assert!(svg.contains("prefers-color-scheme: dark"));
        assert!(!svg.contains("Socket.IO"), "it was skipped");
    }

    #[test]
    fn what_was_not_measured_has_no_picture() {
        assert!(picture(&GOALS[5], &fixture()).is_none());
    }

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(file_name(&GOALS[0]), "G1-websocket-fanout.svg");
        assert_eq!(file_name(&GOALS[4]), "G5-fresh-state-on-a-bad-network.svg");
    }
}
