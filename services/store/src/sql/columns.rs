//! Rows as columns, for PostgreSQL: each column is one text, which the server
//! splits. That costs it less than a placeholder for every value, and the
//! statement's text does not depend on the number of rows.

use std::fmt::Write as _;

use super::Value;

/// Between the values of a column.
const SEPARATOR: char = '\u{1f}';
/// Stands for NULL.
const NULL: &str = "\u{1e}";

/// The table `v` and its arguments. `None` for a single row, which is cheaper as
/// it is, and for a text that holds a mark.
pub(super) fn table(rows: &[Vec<Value>]) -> Option<(String, Vec<Value>)> {
    let [first, _, ..] = rows else { return None };
    if rows.iter().flatten().any(holds_mark) {
        return None;
    }
    let mut table = Table::default();
    for (index, kind) in first.iter().enumerate() {
        let column = rows.iter().filter_map(|row| row.get(index));
        match kind {
            Value::Text(_) => {
                let part = table.split(joined(column.map(text)));
                table.select(&part);
            }
            Value::Int(_) => {
                let part = table.split(joined(column.map(number)));
                table.select(&format!("CAST({part} AS BIGINT)"));
            }
            Value::Bytes(_) => table.cut(column),
        }
    }
    let Table {
        selected,
        arrays,
        parts,
        arguments,
        ..
    } = table;
    Some((
        format!("(SELECT {selected} FROM unnest({arrays}) AS u({parts})) AS v"),
        arguments,
    ))
}

#[derive(Default)]
struct Table {
    /// The columns of `v`.
    selected: String,
    columns: usize,
    /// What is split, and how its parts are called.
    arrays: String,
    parts: String,
    arguments: Vec<Value>,
}

impl Table {
    /// One more argument to be split; gives the name of its parts.
    fn split(&mut self, joined: String) -> String {
        let comma = if self.arrays.is_empty() { "" } else { "," };
        self.arguments.push(joined.into());
        let number = self.arguments.len();
        // Writing to a String cannot fail.
        let _ = write!(self.arrays, "{comma}string_to_array(${number}, E'\\x1f', E'\\x1e')");
        let _ = write!(self.parts, "{comma}p{number}");
        format!("p{number}")
    }

    /// The next column of `v`.
    fn select(&mut self, value: &str) {
        let comma = if self.columns == 0 { "" } else { ", " };
        self.columns += 1;
        let _ = write!(self.selected, "{comma}{value} AS column{}", self.columns);
    }

    /// All bytes as one argument, of which each row gets its part.
    fn cut<'a>(&mut self, column: impl Iterator<Item = &'a Value>) {
        let mut all = Vec::new();
        let (mut starts, mut lengths) = (Vec::new(), Vec::new());
        for value in column {
            let Value::Bytes(Some(bytes)) = value else {
                starts.push(NULL.to_owned());
                lengths.push(NULL.to_owned());
                continue;
            };
            starts.push((all.len() + 1).to_string());
            lengths.push(bytes.len().to_string());
            all.extend_from_slice(bytes);
        }
        let start = self.split(joined(starts));
        let length = self.split(joined(lengths));
        self.arguments.push(Value::Bytes(Some(all)));
        let bytes = self.arguments.len();
        self.select(&format!(
            "substring(${bytes} FROM CAST({start} AS INT) FOR CAST({length} AS INT))"
        ));
    }
}

fn holds_mark(value: &Value) -> bool {
    matches!(value, Value::Text(Some(text)) if text.contains(SEPARATOR) || text == NULL)
}

fn text(value: &Value) -> &str {
    match value {
        Value::Text(Some(text)) => text,
        _ => NULL,
    }
}

fn number(value: &Value) -> String {
    match value {
        Value::Int(Some(number)) => number.to_string(),
        _ => NULL.to_owned(),
    }
}

fn joined(values: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut joined = String::new();
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            joined.push(SEPARATOR);
        }
        joined.push_str(value.as_ref());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_one_argument() {
        let row = |name: Option<&str>, bytes: &[u8]| {
            vec![Value::from(7), Value::from(name), Value::from(Some(bytes.to_vec()))]
        };
        let (table, arguments) = table(&[row(Some("a"), b"xy"), row(None, b"z")]).unwrap();
        assert_eq!(
            table,
            "(SELECT CAST(p1 AS BIGINT) AS column1, p2 AS column2, \
             substring($5 FROM CAST(p3 AS INT) FOR CAST(p4 AS INT)) AS column3 \
             FROM unnest(string_to_array($1, E'\\x1f', E'\\x1e'),string_to_array($2, E'\\x1f', E'\\x1e'),\
             string_to_array($3, E'\\x1f', E'\\x1e'),string_to_array($4, E'\\x1f', E'\\x1e')) AS u(p1,p2,p3,p4)) AS v"
        );
        let texts: Vec<&str> = arguments.iter().map(text).collect();
        assert_eq!(texts, ["7\u{1f}7", "a\u{1f}\u{1e}", "1\u{1f}3", "2\u{1f}1", NULL]);
        assert!(matches!(&arguments[4], Value::Bytes(Some(bytes)) if bytes == b"xyz"));
    }

    #[test]
    fn what_would_be_split_wrongly_goes_another_way() {
        let rows = |texts: &[&str]| texts.iter().map(|text| vec![Value::from(*text)]).collect::<Vec<_>>();
        assert!(table(&rows(&["", ""])).is_some());
        assert!(table(&rows(&["a", "b\u{1e}"])).is_some());
        // The split of an empty text has no parts at all.
        assert!(table(&rows(&[""])).is_none());
        assert!(table(&rows(&["a", "b\u{1f}"])).is_none());
        assert!(table(&rows(&["a", "\u{1e}"])).is_none());
        assert!(table(&[]).is_none());
    }
}
