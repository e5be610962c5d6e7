//! Percentiles of a series. In: samples. Out: one number each. Never: throws a sample away.

/// Samples of one figure, sorted.
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
    /// The nearest-rank percentile, `percent` from 0 to 100; 0 for an empty series.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}
