//! Order statistics.

/// Samples in order.
#[derive(Debug, Clone)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts them; what is not a number is dropped.
    pub fn new(samples: impl IntoIterator<Item = f64>) -> Sorted {
        let mut samples: Vec<f64> = samples.into_iter().filter(|s| s.is_finite()).collect();
        samples.sort_by(f64::total_cmp);
        Sorted(samples)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn all(&self) -> &[f64] {
        &self.0
    }

    /// The smallest; 0 without samples.
    pub fn first(&self) -> f64 {
        self.0.first().copied().unwrap_or(0.0)
    }

    /// The largest; 0 without samples.
    pub fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }

    /// The middle one, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        match self.0.len() {
            0 => 0.0,
            n if n % 2 == 1 => self.0[n / 2],
            n => (self.0[n / 2 - 1] + self.0[n / 2]) / 2.0,
        }
    }

    /// The smallest sample that at least this share of all samples does not exceed (nearest rank).
    pub fn quantile(&self, share: f64) -> f64 {
        let n = self.0.len();
        if n == 0 {
            return 0.0;
        }
        let rank = (share * n as f64).ceil() as usize;
        self.0[rank.clamp(1, n) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        let s = Sorted::new([3.0, 1.0, 2.0, 4.0, f64::NAN]);
        assert_eq!(
            (s.len(), s.first(), s.median(), s.last()),
            (4, 1.0, 2.5, 4.0)
        );
        assert_eq!(
            (s.quantile(0.5), s.quantile(0.99), s.quantile(0.0)),
            (2.0, 4.0, 1.0)
        );
        let hundred = Sorted::new((1..=100).map(f64::from));
        assert_eq!(hundred.quantile(0.99), 99.0);
        assert_eq!(Sorted::new([]).median(), 0.0);
    }

    proptest! {
        #[test]
        fn quantiles_are_samples_in_order(samples in proptest::collection::vec(0.0f64..1e6, 1..50), a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let s = Sorted::new(samples.clone());
            let (a, b) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(s.quantile(a) <= s.quantile(b));
            prop_assert!(samples.contains(&s.quantile(a)));
            prop_assert!(s.first() <= s.median() && s.median() <= s.last());
        }
    }
}
