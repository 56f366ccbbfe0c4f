//! The table a run of the benches ends with: a row for each thing measured, ready to be put into a README.

use std::fmt;
use std::time::Duration;

/// Rows, in the order they were measured.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

/// One row; an empty cell says that there is nothing of that kind.
#[derive(Debug, Default)]
pub struct Row {
    /// What was measured, with its unit.
    pub what: String,
    /// The pair's figures, one a round.
    pub pair: String,
    /// The chain's.
    pub chain: String,
    /// Those of the bare loop.
    pub bare: String,
    /// The pair's by the chain's.
    pub ratio: String,
    /// What it should be.
    pub aim: &'static str,
}

impl Table {
    /// One more.
    pub fn add(&mut self, row: Row) {
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | pair | chain | bare loop | ratio | aim |\n|---|---|---|---|---|---|")?;
        for Row { what, pair, chain, bare, ratio, aim } in &self.0 {
            writeln!(f, "| {what} | {pair} | {chain} | {bare} | {ratio} | {aim} |")?;
        }
        Ok(())
    }
}

/// Numbers side by side.
pub fn numbers(values: impl IntoIterator<Item = f64>, decimals: usize) -> String {
    let texts: Vec<String> = values.into_iter().map(|value| format!("{value:.decimals$}")).collect();
    texts.join(", ")
}

/// How many times as much, round by round.
pub fn times(pair: &[f64], chain: &[f64]) -> String {
    let texts: Vec<String> = pair.iter().zip(chain).map(|(pair, chain)| format!("{:.1}×", pair / chain)).collect();
    texts.join(", ")
}

/// What part of it, round by round.
pub fn parts(pair: &[f64], chain: &[f64]) -> String {
    let texts: Vec<String> = pair.iter().zip(chain).map(|(pair, chain)| format!("1/{:.0}", chain / pair)).collect();
    texts.join(", ")
}

/// A time in milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Memory in MiB.
pub fn mebibytes(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

/// So many in such a time, a second.
pub fn per_second(count: usize, elapsed: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / elapsed.as_secs_f64()
}
