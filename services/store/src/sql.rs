//! Statements: their text, their arguments, and what they are for.
//!
//! [`sql`] is a fixed statement with numbered placeholders. [`Rows`] is one that
//! takes many rows at once: its text has a `{rows}` where a table `v` with the
//! columns `column1`, `column2`, … stands.
//!
//! PostgreSQL gets a column as one argument (`sql/columns.rs`), and so parses and
//! plans each statement once. SQLite gets a `VALUES` list; its number of rows is
//! padded with rows of NULL up to one of a few sizes, so that the statement cache
//! stays small; therefore such a text ends in `WHERE column1 IS NOT NULL` unless
//! a join drops those rows anyway.

mod columns;

use std::borrow::Cow;
use std::fmt::Write as _;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, Arguments, AssertSqlSafe, Decode, Row, Type};

use model::time::Moment;

use crate::Error;
use crate::connection::Connection;

/// Row counts that statements are built for.
const SIZES: [usize; 6] = [1, 4, 16, 64, 256, 1024];

/// SQLite takes 32,766 in one statement, PostgreSQL 65,535.
const MAX_PARAMETERS: usize = 32_000;

/// One argument.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Bytes(Option<Vec<u8>>),
}

/// A statement whose text depends on no row.
pub(crate) struct Statement {
    text: Cow<'static, str>,
    doing: &'static str,
    arguments: Vec<Value>,
}

/// A statement over many rows.
pub(crate) struct Rows {
    text: &'static str,
    doing: &'static str,
    rows: Vec<Vec<Value>>,
}

/// A statement with placeholders `$1`, `$2`, …. `doing` completes "unavailable while …".
pub(crate) fn sql(text: impl Into<Cow<'static, str>>, doing: &'static str) -> Statement {
    Statement {
        text: text.into(),
        doing,
        arguments: Vec::new(),
    }
}

/// A statement with a `{rows}` in it.
pub(crate) fn rows(text: &'static str, doing: &'static str) -> Rows {
    Rows {
        text,
        doing,
        rows: Vec::new(),
    }
}

impl Statement {
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.arguments.push(value.into());
        self
    }

    /// Adds text about a value, which stands where it has `{}`.
    pub(crate) fn with(mut self, text: &str, value: impl Into<Value>) -> Self {
        self.arguments.push(value.into());
        let placeholder = format!("${}", self.arguments.len());
        self.then(&text.replace("{}", &placeholder))
    }

    /// Adds text.
    pub(crate) fn then(mut self, text: &str) -> Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// How SQLite would find its rows.
    #[cfg(test)]
    pub(crate) fn explained(mut self) -> Self {
        self.text.to_mut().insert_str(0, "EXPLAIN QUERY PLAN ");
        self
    }

    /// Whether an argument holds U+0000, which no stored text does.
    pub(crate) fn asks_for_nul(&self) -> bool {
        self.arguments.iter().any(Value::holds_nul)
    }

    /// The number of rows that it changed.
    pub(crate) async fn execute(self, connection: &mut Connection) -> Result<u64, Error> {
        execute(self.text.into_owned(), self.doing, self.arguments, connection).await
    }

    pub(crate) async fn all(self, connection: &mut Connection) -> Result<Vec<AnyRow>, Error> {
        all(self.text.into_owned(), self.doing, self.arguments, connection).await
    }

    /// The first row, if there is one.
    pub(crate) async fn first(self, connection: &mut Connection) -> Result<Option<AnyRow>, Error> {
        Ok(self.all(connection).await?.into_iter().next())
    }
}

impl Rows {
    /// All rows have the same number and kinds of values, the first never NULL.
    pub(crate) fn push(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    /// A statement over one row for each value.
    pub(crate) fn of<T: Into<Value>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        self.rows.extend(values.into_iter().map(|value| vec![value.into()]));
        self
    }

    pub(crate) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The number of rows that it changed. Without rows: no statement.
    pub(crate) async fn execute(self, connection: &mut Connection) -> Result<u64, Error> {
        let mut changed = 0;
        for (text, arguments) in parts(self.text, self.rows, connection.is_postgres()) {
            changed += execute(text, self.doing, arguments, connection).await?;
        }
        Ok(changed)
    }

    /// The rows that it finds. Without rows: no statement. A row with U+0000 in
    /// it finds nothing, for no stored text holds that.
    pub(crate) async fn all(mut self, connection: &mut Connection) -> Result<Vec<AnyRow>, Error> {
        self.rows.retain(|row| !row.iter().any(Value::holds_nul));
        let mut found = Vec::new();
        for (text, arguments) in parts(self.text, self.rows, connection.is_postgres()) {
            found.extend(all(text, self.doing, arguments, connection).await?);
        }
        Ok(found)
    }
}

/// A column of a row, by its name.
pub(crate) fn get<'r, T>(row: &'r AnyRow, column: &'static str) -> Result<T, Error>
where
    T: Decode<'r, Any> + Type<Any>,
{
    row.try_get(column)
        .map_err(|error| Error::corrupt("reading a column", error))
}

/// A moment in a column.
pub(crate) fn moment(row: &AnyRow, column: &'static str) -> Result<Moment, Error> {
    get(row, column).map(Moment::from_ms)
}

/// A moment in a column that may be NULL.
pub(crate) fn moment_if_any(row: &AnyRow, column: &'static str) -> Result<Option<Moment>, Error> {
    Ok(get::<Option<i64>>(row, column)?.map(Moment::from_ms))
}

/// JSON in a column of text.
pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<T, Error> {
    let text: &str = get(row, column)?;
    serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("the JSON of column {column}: {error}")))
}

/// JSON in a column of text that may be NULL.
pub(crate) fn json_if_any<T: serde::de::DeserializeOwned>(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<T>, Error> {
    match get::<Option<String>>(row, column)? {
        Some(_) => json(row, column).map(Some),
        None => Ok(None),
    }
}

/// Text that must have the form `parse` knows (an id, a state's name).
pub(crate) fn parsed<T>(row: &AnyRow, column: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
    let text: &str = get(row, column)?;
    parse(text).ok_or_else(|| Error::Corrupt(format!("column {column} holds {text:?}")))
}

/// The same for a column that may be NULL.
pub(crate) fn parsed_if_any<T>(
    row: &AnyRow,
    column: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Error> {
    match get::<Option<String>>(row, column)? {
        None => Ok(None),
        Some(_) => parsed(row, column, parse).map(Some),
    }
}

/// JSON text of a value of ours.
pub(crate) fn to_json<T: serde::Serialize>(value: &T, doing: &'static str) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Refused {
        doing,
        source: sqlx::Error::Encode(error.into()),
    })
}

async fn execute(
    text: String,
    doing: &'static str,
    arguments: Vec<Value>,
    connection: &mut Connection,
) -> Result<u64, Error> {
    count_statement();
    let arguments = encode(doing, arguments)?;
    let query = sqlx::query_with::<Any, _>(AssertSqlSafe(text), arguments);
    let done = connection.run(doing, |connection| query.execute(connection)).await?;
    Ok(done.rows_affected())
}

async fn all(
    text: String,
    doing: &'static str,
    arguments: Vec<Value>,
    connection: &mut Connection,
) -> Result<Vec<AnyRow>, Error> {
    count_statement();
    let arguments = encode(doing, arguments)?;
    let query = sqlx::query_with::<Any, _>(AssertSqlSafe(text), arguments);
    connection.run(doing, |connection| query.fetch_all(connection)).await
}

/// PostgreSQL refuses U+0000 in text and SQLite would keep it: refused for both.
fn encode(doing: &'static str, values: Vec<Value>) -> Result<AnyArguments, Error> {
    let mut arguments = AnyArguments::default();
    for value in values {
        let added = match value {
            nul if nul.holds_nul() => Err("a text holds U+0000".into()),
            Value::Text(text) => arguments.add(text),
            Value::Int(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(bytes),
        };
        added.map_err(|source| Error::Refused {
            doing,
            source: sqlx::Error::Encode(source),
        })?;
    }
    Ok(arguments)
}

/// The texts and arguments that carry these rows.
fn parts(text: &str, rows: Vec<Vec<Value>>, is_postgres: bool) -> Vec<(String, Vec<Value>)> {
    match columns::table(&rows) {
        Some((table, arguments)) if is_postgres => vec![(text.replace("{rows}", &table), arguments)],
        _ => padded(text, rows, is_postgres),
    }
}

/// `VALUES` lists: one, up to the largest size.
fn padded(text: &str, mut rows: Vec<Vec<Value>>, is_postgres: bool) -> Vec<(String, Vec<Value>)> {
    let width = rows.first().map_or(1, Vec::len);
    let largest = largest_size(width);
    let mut parts = Vec::new();
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(largest));
        let size = SIZES.into_iter().find(|size| *size >= rows.len()).unwrap_or(largest);
        if let Some(padding) = rows.first().map(|row| row.iter().map(Value::null).collect::<Vec<_>>()) {
            rows.resize(size, padding);
        }
        let table = values_table(size, width, is_postgres);
        parts.push((text.replace("{rows}", &table), rows.into_iter().flatten().collect()));
        rows = rest;
    }
    parts
}

fn largest_size(width: usize) -> usize {
    SIZES
        .into_iter()
        .rev()
        .find(|size| size * width <= MAX_PARAMETERS)
        .unwrap_or(1)
}

/// `(VALUES ($1,$2),($3,$4)) AS v`. SQLite gets plain `?`: it searches named
/// ones one by one, which takes quadratic time.
fn values_table(size: usize, width: usize, is_postgres: bool) -> String {
    let mut table = String::with_capacity(size * width * 7);
    table.push_str("(VALUES ");
    for row in 0..size {
        table.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..width {
            if column > 0 {
                table.push(',');
            }
            if is_postgres {
                // Writing to a String cannot fail.
                let _ = write!(table, "${}", row * width + column + 1);
            } else {
                table.push('?');
            }
        }
        table.push(')');
    }
    table.push_str(") AS v");
    table
}

impl Value {
    fn holds_nul(&self) -> bool {
        matches!(self, Self::Text(Some(text)) if text.contains('\0'))
    }

    /// NULL of the same type: PostgreSQL wants to know it.
    fn null(&self) -> Self {
        match self {
            Self::Text(_) => Self::Text(None),
            Self::Int(_) => Self::Int(None),
            Self::Bytes(_) => Self::Bytes(None),
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Int(Some(i64::from(yes)))
    }
}

impl From<Moment> for Value {
    fn from(moment: Moment) -> Self {
        Self::Int(Some(moment.as_ms()))
    }
}

impl From<Option<Moment>> for Value {
    fn from(moment: Option<Moment>) -> Self {
        Self::Int(moment.map(Moment::as_ms))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}

#[cfg(not(test))]
fn count_statement() {}

#[cfg(test)]
fn count_statement() {
    let _ = STATEMENTS.try_with(|statements| statements.set(statements.get() + 1));
}

#[cfg(test)]
tokio::task_local! {
    /// How many statements the present task has run.
    pub(crate) static STATEMENTS: std::cell::Cell<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_to_a_few_sizes() {
        // Rows and their width; the sizes of the statements that carry them.
        let cases: [(usize, usize, &[usize]); 8] = [
            (0, 2, &[]),
            (1, 2, &[1]),
            (2, 2, &[4]),
            (16, 2, &[16]),
            (17, 2, &[64]),
            (1_024, 16, &[1_024]),
            (1_030, 31, &[1_024, 16]),
            (300, 125, &[256, 64]),
        ];
        for (count, width, sizes) in cases {
            let given = vec![vec![Value::from("x"); width]; count];
            let parts = padded("SELECT 1 FROM {rows}", given, true);
            let made: Vec<usize> = parts.iter().map(|(_, arguments)| arguments.len() / width).collect();
            assert_eq!(made, sizes, "{count} rows of {width}");
            for (text, arguments) in &parts {
                assert!(
                    text.contains(&format!("${},", arguments.len()))
                        || text.contains(&format!("${})", arguments.len()))
                );
            }
        }
        let (text, arguments) = parts(
            "SELECT 1 FROM {rows}",
            vec![vec![Value::from(7), Value::from("x")]; 2],
            false,
        )
        .pop()
        .unwrap();
        assert_eq!(text, "SELECT 1 FROM (VALUES (?,?),(?,?),(?,?),(?,?)) AS v");
        assert!(matches!(arguments[7], Value::Text(None)));
        assert!(matches!(arguments[6], Value::Int(None)));
    }
}
