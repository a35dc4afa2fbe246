//! One picture of what was kept: a bar a figure, as a share of what stands beside it.

use super::result::{Results, Row, shown};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results.svg");
const WIDTH: usize = 900;
const LINE: usize = 22;
const LEFT: usize = 440;
/// Units of a ratio of 1.
const ONE: f64 = 200.0;

/// Draws every ratio of every measure.
pub(crate) fn draw(all: &[Results]) {
    let (mut bars, mut y) = (String::new(), 36);
    for results in all {
        let ratios: Vec<&Row> = results.rows.iter().filter(|row| row.unit == "ratio").collect();
        if ratios.is_empty() {
            continue;
        }
        bars +=
            &format!("<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{}</text>\n", results.measure);
        y += LINE;
        for row in ratios {
            bars += &bar(row, y);
            y += LINE;
        }
        y += LINE / 2;
    }
    let one = LEFT as f64 + ONE;
    let machine = all.first().map_or("", |results| &results.machine);
    let picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"16\" fill=\"#555\">{machine}</text>\n\
         <line x1=\"{one}\" y1=\"24\" x2=\"{one}\" y2=\"{y}\" stroke=\"#999\" stroke-dasharray=\"3\"/>\n\
         {bars}</svg>\n",
        height = y + 8,
    );
    std::fs::write(FILE, picture).unwrap();
    println!("drawn in {FILE}");
}

fn bar(row: &Row, y: usize) -> String {
    let median = row.median();
    let length = (median * ONE).min((WIDTH - LEFT - 60) as f64);
    let (top, end) = (y - 12, LEFT as f64 + length + 6.0);
    format!(
        "<text x=\"20\" y=\"{y}\">{}</text>\n\
         <rect x=\"{LEFT}\" y=\"{top}\" width=\"{length:.0}\" height=\"15\" fill=\"#4477aa\"/>\n\
         <text x=\"{end:.0}\" y=\"{y}\">{}</text>\n",
        row.what,
        shown(median),
    )
}
