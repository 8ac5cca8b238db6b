//! Draws a plot as SVG.

use plotters::{coord::ranged1d::AsRangedCoord, prelude::*};

use super::report::{Axis, Plot};

const SIZE: (u32, u32) = (860, 380);

/// Returns the plot as an SVG element.
pub(crate) fn svg(plot: &Plot) -> anyhow::Result<String> {
    let (x, y) = (range(plot, &plot.x, |point| point.0), range(plot, &plot.y, |point| point.1));
    let mut text = String::new();
    match (plot.x.logarithmic, plot.y.logarithmic) {
        (false, false) => draw(plot, &mut text, x.0..x.1, y.0..y.1)?,
        (true, false) => draw(plot, &mut text, (x.0..x.1).log_scale(), y.0..y.1)?,
        (false, true) => draw(plot, &mut text, x.0..x.1, (y.0..y.1).log_scale())?,
        (true, true) => draw(plot, &mut text, (x.0..x.1).log_scale(), (y.0..y.1).log_scale())?,
    }
    Ok(text)
}

fn range(plot: &Plot, axis: &Axis, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let values = plot.lines.iter().flat_map(|line| &line.points).map(of).filter(|value| value.is_finite());
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if !low.is_finite() {
        return (0.1, 1.0);
    }
    if axis.logarithmic { (low.max(1e-9) * 0.8, high.max(1e-9) * 1.25) } else { (0.0, (high * 1.05).max(1e-9)) }
}

fn draw<X, Y>(plot: &Plot, text: &mut String, x: X, y: Y) -> anyhow::Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
    Y::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(x, y)?;
    let short = |value: &f64| match value.abs() {
        10_000.0.. => format!("{:.0}k", value / 1e3),
        10.0.. => format!("{value:.0}"),
        _ => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    };
    chart
        .configure_mesh()
        .x_desc(&plot.x.label)
        .y_desc(&plot.y.label)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .light_line_style(WHITE)
        .draw()?;
    for (number, line) in plot.lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let points = || line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points(), color.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2)));
        if line.points.len() <= 40 {
            chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
        }
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
    area.present()?;
    Ok(())
}
