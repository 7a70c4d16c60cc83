//! Tables of text: the first column to the left, figures to the right.

/// Prints `rows` under `head`, each column as wide as its widest cell.
pub fn print(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    for row in [&head, &rule].into_iter().chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        println!("{}", line.trim_end());
    }
}

/// Requests per CPU-second with a unit that keeps three or four digits: `124.3 k`, `812`.
pub fn rate(figure: f64) -> String {
    if figure >= 10_000.0 { format!("{:.1} k", figure / 1000.0) } else { format!("{figure:.0}") }
}
