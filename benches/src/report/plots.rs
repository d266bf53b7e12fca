//! The plots, as SVG.
//!
//! Each plot shows samples that are in the JSON too. A plot without data is skipped.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, Circle, Color, DrawingArea, IntoDrawingArea,
    LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont, ShapeStyle};

use crate::cases;
use crate::results::Results;
use crate::sample::{Metric, grouped};

/// A plot.
pub(crate) struct Plot {
    /// Name of the file without the extension.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) svg: String,
}

/// Names of all plots.
pub(crate) const NAMES: [&str; 4] = ["throughput", "cpu", "latency", "memory"];

/// Draws all plots that have data.
pub(crate) fn all(results: &Results) -> Result<Vec<Plot>, String> {
    let drawn = [
        throughput(results),
        cpu(results),
        distribution(results),
        memory(results),
    ];
    drawn.into_iter().filter_map(Result::transpose).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<Option<Plot>, String>;

const SIZE: (u32, u32) = (900, 460);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// The points of one target.
struct Line<'a> {
    target: &'a str,
    points: Vec<(f64, f64)>,
}

/// Latency against throughput in the open loops.
fn throughput(results: &Results) -> Drawn {
    let lines = |metric| {
        let points = |target: &str| {
            let at = |percent| {
                let case = cases::rate_case(percent);
                let spread = |metric| Some(results.spread(&case, target, metric)?.median);
                Some((spread(Metric::Rate)?, spread(metric)?))
            };
            cases::RATES.into_iter().filter_map(at).collect()
        };
        lines(results, points)
    };
    let (left, right) = (lines(Metric::P50), lines(Metric::P99));
    if left.is_empty() {
        return Ok(None);
    }
    let svg = draw(|area| {
        let (one, two) = with_legend(area, &left)?.split_horizontally((SIZE.0 - 140) / 2);
        for (panel, lines, title) in [(one, left, "p50"), (two, right, "p99")] {
            let x = 0.0..1.05 * greatest(&lines, |point| point.0);
            let mut chart = ChartBuilder::on(&panel)
                .caption(format!("Latency, {title}, ms"), title_style())
                .margin(14)
                .margin_right(26)
                .x_label_area_size(46)
                .y_label_area_size(52)
                .build_cartesian_2d(x, Decades(around(&lines)))
                .map_err(error_text)?;
            mesh(
                &mut chart,
                "calls per second",
                "",
                &|x| grouped(*x, 0),
                &short,
            )?;
            draw_lines(&mut chart, lines, true)?;
        }
        Ok(())
    })?;
    Ok(Some(Plot {
        name: "throughput",
        title: "Latency against throughput, open loop, linearizable reads of a small key",
        svg,
    }))
}

/// Distribution of the latencies at a moderate rate.
fn distribution(results: &Results) -> Drawn {
    let case = cases::rate_case(cases::RATE_OF_GOAL);
    // Each unit of the axis is one more nine: 0 %, 90 %, 99 %, 99.9 %.
    let steps = || (0..=30).map(|step| f64::from(step) / 10.0);
    let lines = lines(results, |target| {
        let Some(latency) = results.latency(&case, target) else {
            return Vec::new();
        };
        steps()
            .map(|rare| {
                let quantile = 1.0 - 10f64.powf(-rare);
                let micros = latency.value_at_quantile(quantile).max(1);
                (rare, micros as f64 / 1e3)
            })
            .collect()
    });
    if lines.is_empty() {
        return Ok(None);
    }
    let svg = draw(|area| {
        let mut chart = ChartBuilder::on(&with_legend(area, &lines)?)
            .caption("Share of calls with at most this latency", title_style())
            .margin(14)
            .margin_right(26)
            .x_label_area_size(46)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..3.0, Decades(around(&lines)))
            .map_err(error_text)?;
        let share = |rare: &f64| {
            format!(
                "{:.*} %",
                (rare - 2.0).max(0.0) as usize,
                100.0 - 10f64.powf(2.0 - rare)
            )
        };
        mesh(&mut chart, "share of calls", "latency, ms", &share, &short)?;
        draw_lines(&mut chart, lines, false)
    })?;
    Ok(Some(Plot {
        name: "latency",
        title: "Distribution of latency at 30 % of the L4 relay's throughput, open loop",
        svg,
    }))
}

/// Memory against the number of connections, all of which are used in turn.
fn memory(results: &Results) -> Drawn {
    let lines = lines(results, |target| {
        let at = |connections: usize| {
            let case = cases::growth_case(connections);
            let spread = results.spread(&case, target, Metric::Resident)?;
            Some((connections as f64, spread.median))
        };
        cases::GROWTH.into_iter().filter_map(at).collect()
    });
    if lines.is_empty() {
        return Ok(None);
    }
    let [first, .., last] = cases::GROWTH;
    let svg = draw(|area| {
        let mut chart = ChartBuilder::on(&with_legend(area, &lines)?)
            .caption("Resident memory by open connections", title_style())
            .margin(14)
            .margin_right(26)
            .x_label_area_size(46)
            .y_label_area_size(62)
            .build_cartesian_2d(Decades(first as f64..last as f64), Decades(around(&lines)))
            .map_err(error_text)?;
        mesh(
            &mut chart,
            "connections",
            "resident, MB",
            &|x| grouped(*x, 0),
            &short,
        )?;
        draw_lines(&mut chart, lines, true)
    })?;
    Ok(Some(Plot {
        name: "memory",
        title: "Memory by number of connections",
        svg,
    }))
}

/// Processor time per call of the proxy and of etcd behind it.
fn cpu(results: &Results) -> Drawn {
    let shown = [
        ("read-c10-m10", "10 connections × 10 in flight"),
        ("read-c64-m1", "64 connections × 1 in flight"),
        ("read-c1000-m1", "1,000 connections × 1 in flight"),
        ("tls-read-c64-m1", "TLS, 64 connections × 1 in flight"),
    ];
    let panels: Vec<(&str, Vec<Bar>)> = shown
        .into_iter()
        .map(|(case, title)| (title, bars(results, case)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let svg = draw(|area| {
        let most = panels.iter().flat_map(|(_, bars)| bars).map(Bar::whole);
        let most = most.fold(0.0, f64::max);
        let rows = panels.len().div_ceil(2);
        let columns = panels.len().min(2);
        for (panel, (title, bars)) in area.split_evenly((rows, columns)).iter().zip(panels) {
            draw_bars(panel, title, &bars, most)?;
        }
        Ok(())
    })?;
    Ok(Some(Plot {
        name: "cpu",
        title: "Processor time in µs per linearizable read: proxy (dark) and etcd behind it (pale)",
        svg,
    }))
}

/// Processor time per call of one target in µs.
struct Bar {
    target: String,
    proxy: f64,
    etcd: f64,
}

impl Bar {
    fn whole(&self) -> f64 {
        self.proxy + self.etcd
    }
}

fn bars(results: &Results, case: &str) -> Vec<Bar> {
    let bar = |target: &String| {
        let spread = |metric| Some(results.spread(case, target, metric)?.median);
        Some(Bar {
            target: target.clone(),
            proxy: spread(Metric::ProxyCpu).unwrap_or(0.0),
            etcd: spread(Metric::EtcdCpu)?,
        })
    };
    results.targets.iter().filter_map(bar).collect()
}

fn draw_bars(area: &Area, title: &str, bars: &[Bar], most: f64) -> Result<(), String> {
    let rows = bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, title_style())
        .margin(10)
        .x_label_area_size(26)
        .y_label_area_size(100)
        .build_cartesian_2d(0.0..1.35 * most, 0.0..rows)
        .map_err(error_text)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(6)
        .label_style((FONT, 12).into_font().color(&INK))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()
        .map_err(error_text)?;
    for (row, bar) in bars.iter().enumerate() {
        let (color, top) = (color(&bar.target), rows - row as f64);
        let bottom = top - 1.0;
        let block = |from, to, style: ShapeStyle| {
            Rectangle::new([(from, bottom + 0.2), (to, top - 0.2)], style)
        };
        let style = |size| (FONT, size).into_font().color(&INK);
        let right = Pos::new(HPos::Right, VPos::Center);
        let middle = bottom + 0.5;
        let words = if bar.proxy > 0.0 {
            format!("{:.1} + {:.1}", bar.proxy, bar.etcd)
        } else {
            format!("{:.1}", bar.etcd)
        };
        chart
            .draw_series([
                block(0.0, bar.proxy, color.filled()),
                block(bar.proxy, bar.whole(), pale(color).filled()),
            ])
            .map_err(error_text)?;
        let past = Pos::new(HPos::Left, VPos::Center);
        let (x, y) = chart.backend_coord(&(bar.whole(), middle));
        let origin = area.get_base_pixel();
        area.draw(&Text::new(
            words,
            (x - origin.0 + 6, y - origin.1),
            style(12).pos(past),
        ))
        .map_err(error_text)?;
        let (x, y) = chart.backend_coord(&(0.0, middle));
        area.draw(&Text::new(
            bar.target.clone(),
            (x - origin.0 - 8, y - origin.1),
            style(13).pos(right),
        ))
        .map_err(error_text)?;
    }
    Ok(())
}

/// Returns the lines of all targets that have points.
fn lines<'a>(results: &'a Results, points: impl Fn(&str) -> Vec<(f64, f64)>) -> Vec<Line<'a>> {
    let line = |target: &'a String| Line {
        points: points(target),
        target,
    };
    let lines = results.targets.iter().map(line);
    lines.filter(|line| !line.points.is_empty()).collect()
}

fn greatest(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    lines
        .iter()
        .flat_map(|line| &line.points)
        .map(of)
        .fold(0.0, f64::max)
}

/// Returns the range of a logarithmic axis: from a little below the lowest point to a little above
/// the highest.
fn around(lines: &[Line]) -> Range<f64> {
    let least = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.1);
    let least = least.fold(f64::INFINITY, f64::min).max(1e-3);
    least / 1.3..greatest(lines, |point| point.1).max(least) * 1.3
}

/// A logarithmic axis.
struct Decades(Range<f64>);

impl Ranged for Decades {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let Range { start, end } = self.0;
        let share = (value / start).ln() / (end / start).ln();
        from + (f64::from(to - from) * share).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        let Range { start, end } = self.0;
        let steps: &[f64] = if end / start < 1e3 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let first = start.log10().floor() as i32;
        let decades = (first..=end.log10().ceil() as i32).map(|power| 10f64.powi(power));
        let marks = decades.flat_map(|decade| steps.iter().map(move |step| step * decade));
        marks
            .filter(|mark| self.0.contains(mark) || *mark == end)
            .collect()
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

// The labels are formatted at the use of the axis.
impl ValueFormatter<f64> for Decades {}

fn draw(each: impl FnOnce(&Area) -> Result<(), String>) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(error_text)?;
        each(&area)?;
        area.present().map_err(error_text)?;
    }
    Ok(svg)
}

fn mesh<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    x_title: &str,
    y_title: &str,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> Result<(), String>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(x_title)
        .y_desc(y_title)
        .x_labels(5)
        .y_labels(12)
        .label_style((FONT, 13).into_font().color(&INK))
        .x_label_formatter(x_label)
        .y_label_formatter(y_label)
        .draw()
        .map_err(error_text)
}

fn draw_lines<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    lines: Vec<Line>,
    dots: bool,
) -> Result<(), String>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for line in lines {
        let style = color(line.target).stroke_width(2);
        if dots {
            let dot = |&point: &(f64, f64)| Circle::new(point, 3, color(line.target).filled());
            chart
                .draw_series(line.points.iter().map(dot))
                .map_err(error_text)?;
        }
        chart
            .draw_series(LineSeries::new(line.points, style))
            .map_err(error_text)?;
    }
    Ok(())
}

/// Draws a legend in a column on the right and returns the rest of the area.
fn with_legend<'a>(area: &Area<'a>, lines: &[Line]) -> Result<Area<'a>, String> {
    let (rest, column) = area.split_horizontally(SIZE.0 - 140);
    for (line, row) in lines.iter().zip(0..) {
        let y = 50 + 22 * row;
        let stroke = color(line.target).stroke_width(3);
        column
            .draw(&PathElement::new([(4, y), (24, y)], stroke))
            .map_err(error_text)?;
        let style = (FONT, 13).into_font().color(&INK);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        column
            .draw(&Text::new(line.target.to_string(), (32, y), style))
            .map_err(error_text)?;
    }
    Ok(rest)
}

fn title_style() -> plotters::style::TextStyle<'static> {
    (FONT, 16).into_font().color(&INK)
}

/// Formats a number with as few digits as are useful.
fn short(value: &f64) -> String {
    if *value >= 10.0 {
        return grouped(*value, 0);
    }
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// Returns the colour of a target in all plots. The colours are distinguishable for colour-blind
/// readers.
fn color(target: &str) -> RGBColor {
    match target {
        "etcd" => RGBColor(120, 120, 120),
        "etcd-edge" => RGBColor(0, 90, 181),
        "etcd-edge-other" => RGBColor(86, 180, 233),
        "grpc-proxy" => RGBColor(213, 94, 0),
        "haproxy-h2" => RGBColor(0, 158, 115),
        "haproxy-tcp" => RGBColor(204, 121, 167),
        "nginx" => RGBColor(230, 159, 0),
        _ => {
            let sum = target
                .bytes()
                .fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
            RGBColor(sum, sum.wrapping_mul(3), 200 - sum / 2)
        }
    }
}

/// Mixes a colour with white. A transparent colour would show the grid.
fn pale(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let mix = |part: u8| 255 - (255 - part) / 3;
    RGBColor(mix(red), mix(green), mix(blue))
}

fn error_text(error: impl std::fmt::Display) -> String {
    format!("plot: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::pace;
    use crate::sample::Sample;
    use crate::targets::TargetKind;

    fn some_results() -> Results {
        let mut results = Results::default();
        for (kind, cost) in TargetKind::ALL.into_iter().zip(1..) {
            let cost = f64::from(cost);
            let mut add = |case: &str, sample| results.add(case, kind.name(), 0, sample);
            for case in [
                "read-c10-m10",
                "read-c64-m1",
                "read-c1000-m1",
                "tls-read-c64-m1",
            ] {
                let costs = [(Metric::ProxyCpu, 9.0 * cost), (Metric::EtcdCpu, 25.0)];
                add(case, Sample::from(costs));
            }
            for percent in cases::RATES {
                let rate = f64::from(percent) * 250.0;
                let mut sample = Sample::from([(Metric::Rate, rate)]);
                let mut latency = pace::latencies().unwrap();
                for call in 1..2000u64 {
                    let slow = 1.0 + rate / (26_000.0 - rate);
                    let micros = 100.0 * cost * slow / (1.0 - call as f64 / 2000.0).sqrt();
                    latency.saturating_record(micros as u64);
                }
                sample.set_latency(latency);
                add(&cases::rate_case(percent), sample);
            }
            for connections in cases::GROWTH {
                let megabytes = 5.0 * cost + connections as f64 / 40.0;
                let sample = Sample::from([(Metric::Resident, megabytes)]);
                add(&cases::growth_case(connections), sample);
            }
        }
        results
    }

    #[test]
    fn every_plot_shows_every_target() {
        let plots = all(&some_results()).unwrap();
        let names: Vec<&str> = plots.iter().map(|plot| plot.name).collect();
        assert_eq!(names, NAMES);
        for plot in plots {
            assert!(plot.svg.starts_with("<svg") && plot.svg.ends_with("</svg>\n"));
            for kind in TargetKind::ALL {
                assert!(
                    plot.svg.contains(kind.name()),
                    "{}: {}",
                    plot.name,
                    kind.name()
                );
            }
        }
    }

    #[test]
    fn empty_results_have_no_plots() {
        assert!(all(&Results::default()).unwrap().is_empty());
    }
}
