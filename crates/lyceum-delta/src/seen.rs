//! Which pages of a machine have been sent, and what was in them.

use crate::{BlockInfo, PAGE};
use std::hash::{BuildHasher, RandomState};
use twox_hash::XxHash3_128;

/// A page whose content is not what was sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// Number of the page, from the beginning of its block.
    pub page: u64,
    fingerprint: u128,
}

/// Fingerprints of pages as they were sent, 16 bytes for each page of the machine.
///
/// While a desktop stands still all of its pages are looked at once more, so the fingerprint is the
/// fastest that is good enough, 128 bits of XXH3. It is no cryptographic one, and need not be: what it
/// compares is a desktop's page with the same page a moment ago. A guest that wanted to deceive it
/// would have to know the seed, which is made anew for each move, and would do harm to itself only.
#[derive(Debug)]
pub struct Seen {
    seed: u64,
    // 0: not sent.
    blocks: Vec<Vec<u128>>,
}

impl Seen {
    /// Nothing of these blocks was sent yet.
    pub fn new(blocks: &[BlockInfo]) -> Seen {
        let pages = |b: &BlockInfo| vec![0; (b.bytes / PAGE as u64) as usize];
        Seen {
            seed: RandomState::new().hash_one(0u8),
            blocks: blocks.iter().map(pages).collect(),
        }
    }

    /// Pages among these contiguous ones that are new or changed, in order. Those outside of the block are none.
    pub fn look(&self, block: usize, first: u64, data: &[u8]) -> Vec<News> {
        let known = self.blocks.get(block).map_or(&[][..], Vec::as_slice);
        let known = known.get(first as usize..).unwrap_or_default();
        let mut news = Vec::new();
        for (at, (before, content)) in known.iter().zip(data.chunks_exact(PAGE)).enumerate() {
            let fingerprint = XxHash3_128::oneshot_with_seed(self.seed, content).max(1);
            if fingerprint != *before {
                let page = first + at as u64;
                news.push(News { page, fingerprint });
            }
        }
        news
    }

    /// These are sent.
    pub fn note(&mut self, block: usize, news: &[News]) {
        let Some(known) = self.blocks.get_mut(block) else {
            return;
        };
        for n in news {
            if let Some(place) = known.get_mut(n.page as usize) {
                *place = n.fingerprint;
            }
        }
    }

    /// Numbers of the pages of a block that were sent, in order.
    pub fn pages(&self, block: usize) -> impl Iterator<Item = u64> + '_ {
        let known = self.blocks.get(block).map_or(&[][..], Vec::as_slice);
        (0..)
            .zip(known)
            .filter(|(_, k)| **k != 0)
            .map(|(page, _)| page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let block = |pages: u64| BlockInfo {
            name: "ram".into(),
            bytes: pages * PAGE as u64,
        };
        Seen::new(&[block(10), block(2)])
    }

    #[test]
    fn an_unchanged_page_is_no_news() {
        let mut seen = seen();
        let mut data = vec![1u8; 3 * PAGE];
        let pages = |news: Vec<News>| news.iter().map(|n| n.page).collect::<Vec<_>>();
        let news = seen.look(0, 5, &data);
        assert_eq!(pages(news.clone()), [5, 6, 7]);
        assert_eq!(pages(seen.look(0, 5, &data)), [5, 6, 7], "looked at only");
        seen.note(0, &news);
        assert_eq!(pages(seen.look(0, 5, &data)), [0u64; 0]);
        data[PAGE + 9] = 2;
        assert_eq!(pages(seen.look(0, 5, &data)), [6]);
        assert_eq!(
            pages(seen.look(1, 0, &data)),
            [0, 1],
            "and not beyond the block"
        );
        assert_eq!(seen.pages(0).collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!(seen.pages(1).count(), 0);
    }

    #[test]
    fn a_page_of_zeros_is_sent_too() {
        let mut seen = seen();
        let news = seen.look(0, 0, &[0; PAGE]);
        assert_eq!(news.len(), 1);
        seen.note(0, &news);
        assert_eq!(seen.look(0, 0, &[0; PAGE]), []);
    }

    #[test]
    fn places_that_are_none_are_none() {
        let mut seen = seen();
        assert_eq!(seen.look(2, 0, &[1; PAGE]), []);
        assert_eq!(seen.look(0, 10, &[1; PAGE]), []);
        assert_eq!(seen.look(0, u64::MAX, &[1; PAGE]), []);
        let news = seen.look(0, 9, &[1; PAGE]);
        seen.note(1, &news);
        seen.note(7, &news);
        assert_eq!(seen.pages(1).count(), 0);
    }
}
