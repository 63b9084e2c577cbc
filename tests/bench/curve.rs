//! The growth curves as a picture: `docs/growth.svg`.

use anyhow::Result;
use plotters::prelude::{
    BLACK, ChartBuilder, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement, RGBColor, SVGBackend,
    SeriesLabelPosition, WHITE,
};
use plotters::style::Color as _;
use tests::harness::servers::repository;

/// Distinct for the eye, and for most of those who see few colours.
const COLOURS: [RGBColor; 13] = [
    RGBColor(0, 0, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 187, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(120, 120, 120),
    RGBColor(136, 34, 85),
    RGBColor(68, 170, 153),
    RGBColor(51, 34, 136),
    RGBColor(153, 153, 51),
];

/// The rates of one thing at each size.
pub struct Curve {
    pub name: &'static str,
    pub rates: Vec<f64>,
}

impl Curve {
    /// The rate at the largest size against that at the smallest.
    pub fn ratio(&self) -> f64 {
        self.last() / self.first()
    }

    pub fn last(&self) -> f64 {
        self.rates.last().copied().unwrap_or_default()
    }

    fn first(&self) -> f64 {
        self.rates.first().copied().unwrap_or_default()
    }
}

/// All in one picture, each against its rate at the smallest size.
pub fn draw(sizes: &[u64], curves: &[Curve]) -> Result<()> {
    let file = repository().join("docs/growth.svg");
    let area = SVGBackend::new(&file, (900, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let range = sizes.first().copied().unwrap_or(1) as f64..sizes.last().copied().unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "Rates as the store grows, against those at 10,000 conversations",
            ("sans-serif", 18),
        )
        .margin(15)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(range.log_scale(), 0.0..1.4)?;
    chart
        .configure_mesh()
        .x_desc("conversations")
        .x_label_formatter(&|size| format!("{size:.0}"))
        .y_label_formatter(&|ratio| format!("{ratio:.1}"))
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points = sizes.iter().zip(&curve.rates);
        let points = points.map(|(size, rate)| (*size as f64, rate / curve.first()));
        let style = colour.stroke_width(if curve.name == "routing" { 3 } else { 1 });
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(format!("{} {:.2}", curve.name, curve.ratio()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
