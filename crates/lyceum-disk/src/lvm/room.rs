//! When a store that fills up is extended, and when its desktops must wait.
//!
//! A classic snapshot whose store is full is lost, and so is what a full pool is given, so both
//! are extended while *headroom* is left. When nothing is left to extend them with, the desktops
//! stand still at half of the headroom: the other half is for what is on its way to the disk by
//! then, which their file system writes as it is frozen.

/// A store: a snapshot's, a pool's data, or a pool's metadata. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// What it holds.
    pub size: u64,
    /// What is taken of it.
    pub used: u64,
    /// Larger would be of no use.
    pub most: u64,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Extend it by this many bytes, a multiple of an extent; 0: not.
    pub extend: u64,
    /// Whether its desktops may write.
    pub writable: bool,
}

/// What to do about a store. `free`: bytes it could be extended with; `headroom`: what should
/// be left in it; `writable`: whether its desktops may write now.
pub fn step(store: Store, free: u64, extent: u64, headroom: u64, writable: bool) -> Step {
    let left = store.size.saturating_sub(store.used);
    let can_fill = store.size < store.most;
    let mut extend = 0;
    if can_fill && left < headroom {
        // A quarter at once, so that a disk that grows a lot is not extended all the time.
        let want = (headroom - left)
            .max(store.size / 4)
            .min(store.most - store.size);
        let whole = |bytes: u64| bytes / extent * extent;
        extend = whole(want.saturating_add(extent - 1)).min(whole(free));
    }
    let left = left.saturating_add(extend);
    let enough = !can_fill || store.size + extend >= store.most;
    let writable = if writable {
        enough || left >= headroom / 2
    } else {
        // Not at the very mark at which it was stopped, or it would go on and off.
        enough || left >= headroom / 4 * 3
    };
    Step { extend, writable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1 << 20;

    fn at(used: u64, size: u64, free: u64, writable: bool) -> Step {
        let store = Store {
            size: size * MB,
            used: used * MB,
            most: 4096 * MB,
        };
        step(store, free * MB, 4 * MB, 64 * MB, writable)
    }

    #[test]
    fn it_is_extended_before_it_is_full_and_stopped_when_it_can_not_be() {
        let nothing = Step {
            extend: 0,
            writable: true,
        };
        assert_eq!(at(0, 128, 1000, true), nothing);
        assert_eq!(
            at(100, 128, 1000, true),
            Step {
                extend: 36 * MB,
                writable: true
            }
        );
        assert_eq!(
            at(600, 640, 1000, true),
            Step {
                extend: 160 * MB,
                writable: true
            }
        );
        assert_eq!(at(90, 128, 0, true), nothing);
        assert_eq!(
            at(100, 128, 0, true),
            Step {
                extend: 0,
                writable: false
            }
        );
        assert_eq!(
            at(100, 128, 8, true),
            Step {
                extend: 8 * MB,
                writable: true
            }
        );
        assert_eq!(
            at(100, 128, 16, false),
            Step {
                extend: 16 * MB,
                writable: false
            }
        );
        assert_eq!(
            at(100, 128, 24, false),
            Step {
                extend: 24 * MB,
                writable: true
            }
        );
        // As large as what it is a snapshot of: it can't fill up.
        assert_eq!(at(4000, 4096, 0, true), nothing);
        assert_eq!(at(4000, 4096, 0, false), nothing);
    }

    proptest! {
        /// A store that is written and tended by turns never overflows, whatever the group
        /// has left, and never loses what it was given.
        #[test]
        fn never_full(
            free in 0u64..2000,
            writes in proptest::collection::vec(0u64..32, 1..200),
        ) {
            let (mut size, mut used, mut free, mut writable) = (128 * MB, 0, free * MB, true);
            for write in writes {
                if writable {
                    // At most half of the headroom between two looks: what the half is for.
                    used += write * MB;
                }
                prop_assert!(used <= size, "{used} in {size}");
                let step = step(
                    Store { size, used, most: 1500 * MB }, free, 4 * MB, 64 * MB, writable,
                );
                prop_assert!(step.extend <= free);
                prop_assert_eq!(step.extend % (4 * MB), 0);
                size += step.extend;
                free -= step.extend;
                writable = step.writable;
                if size >= 1500 * MB { break }
            }
        }
    }
}
