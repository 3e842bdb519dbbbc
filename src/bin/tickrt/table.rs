//! What is printed: columns that line up.

/// A table: the first row is its head. Numbers go to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with this head; `>` before a name sends its column to the right.
    pub fn new(head: &[&str]) -> Self {
        let right = head.iter().map(|name| name.starts_with('>')).collect();
        let head = head.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![head], right }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }

    /// Prints it on stdout, each line after two blanks.
    pub fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&self.right).zip(&widths);
            let cells = cells.map(
                |((cell, &right), &width)| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") },
            );
            println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

/// Prints names and values on stdout, the values in one column; further lines of a value go below its first.
pub fn facts<'name>(facts: impl IntoIterator<Item = (&'name str, String)>) {
    let facts: Vec<_> = facts.into_iter().collect();
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in &facts {
        let value = value.replace('\n', &format!("\n  {:width$}  ", ""));
        println!("{}", format!("  {name:width$}  {value}").trim_end());
    }
}

/// `1.2 MB`.
pub fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        1e9.. => format!("{:.2} GB", bytes / 1e9),
        1e6.. => format!("{:.1} MB", bytes / 1e6),
        1e3.. => format!("{:.1} kB", bytes / 1e3),
        _ => format!("{bytes} bytes"),
    }
}

/// `98.4 %`.
pub fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// A hash as it is written.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
