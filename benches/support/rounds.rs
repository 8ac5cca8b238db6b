//! Rounds and their medians. The sides alternate, so a slow moment of the machine affects all of them.

/// Results of the rounds of one side, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Returns the median of the rounds.
    pub(crate) fn median(&self) -> f64 {
        median(self.0.clone())
    }

    /// Returns the median of the ratios, each of two adjacent rounds.
    pub(crate) fn over(&self, other: &Self) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(this, that)| this / that).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
