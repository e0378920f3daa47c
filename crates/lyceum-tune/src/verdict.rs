//! Whether a change helped, going by measurements before and after it that were taken in turns.

use serde::{Deserialize, Serialize};

/// A gain below this share is none: nobody would feel it, and it is within what machines do by themselves.
const LEAST: f64 = 0.02;

/// Measurements of one figure; more is better.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured, `TCP to 10.10.0.1, send` for example.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// As it was.
    pub before: Vec<f64>,
    /// With the change.
    pub after: Vec<f64>,
}

/// What follows from a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the change is kept.
    pub helps: bool,
    /// Share by which the median grew; below 0: it shrank.
    pub gain: f64,
    /// Share by which single measurements differ anyway.
    pub noise: f64,
}

/// The middle one, or the mean of the two in the middle; 0 without any.
pub fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|s| s.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Half of the range in which the samples lie, as a share of their median.
fn spread(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    let middle = median(&sorted);
    match (sorted.first(), sorted.last()) {
        (Some(first), Some(last)) if middle > 0.0 => (last - first) / middle / 2.0,
        _ => 0.0,
    }
}

impl Measured {
    /// Kept only if it helps: the median must grow by more than what the figure changes anyway.
    pub fn verdict(&self) -> Verdict {
        let (before, after) = (median(&self.before), median(&self.after));
        let noise = spread(&self.before).max(spread(&self.after));
        if before <= 0.0 || self.after.is_empty() {
            return Verdict {
                helps: false,
                gain: 0.0,
                noise,
            };
        }
        let gain = after / before - 1.0;
        Verdict {
            helps: gain > LEAST.max(noise),
            gain,
            noise,
        }
    }
}

/// Several figures together: kept when one of them gains and none loses.
pub fn together(measured: &[Measured]) -> bool {
    let verdicts: Vec<Verdict> = measured.iter().map(Measured::verdict).collect();
    verdicts.iter().any(|v| v.helps) && verdicts.iter().all(|v| v.gain > -LEAST.max(v.noise))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn measured(before: &[f64], after: &[f64]) -> Measured {
        Measured {
            before: before.to_vec(),
            after: after.to_vec(),
            ..Measured::default()
        }
    }

    #[test]
    fn a_gain_is_more_than_noise() {
        for (before, after, helps) in [
            (&[100.0, 101.0, 99.0][..], &[109.0, 110.0, 108.0][..], true),
            (&[100.0, 101.0, 99.0], &[101.0, 102.0, 100.0], false),
            (&[100.0, 130.0, 70.0], &[110.0, 140.0, 80.0], false),
            (&[100.0], &[90.0], false),
            (&[100.0], &[], false),
            (&[], &[100.0], false),
            (&[0.0], &[100.0], false),
        ] {
            let verdict = measured(before, after).verdict();
            assert_eq!(verdict.helps, helps, "{before:?} {after:?} {verdict:?}");
        }
    }

    #[test]
    fn one_figure_must_not_pay_for_another() {
        let up = measured(&[100.0], &[120.0]);
        let same = measured(&[100.0], &[99.0]);
        let down = measured(&[100.0], &[80.0]);
        assert!(together(&[up.clone(), same.clone()]));
        assert!(!together(&[up, down]));
        assert!(!together(&[same]));
        assert!(!together(&[]));
    }

    proptest! {
        #[test]
        fn what_does_not_grow_is_not_kept(samples in proptest::collection::vec(0.0f64..1e9, 0..8), shrink in 0.0f64..=1.0) {
            let after: Vec<f64> = samples.iter().map(|s| s * shrink).collect();
            prop_assert!(!measured(&samples, &after).verdict().helps);
        }
    }
}
