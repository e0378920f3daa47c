//! What a release's file consists of, block by block, so that a host that has one release
//! needs to read only what is different in the next.
//!
//! The list is derived and is no part of the release: it lies beside the file and may be missing
//! or wrong. Whoever uses it still compares the whole file with its release's manifest.

/// Bytes of a block; the last one of a file may be shorter.
pub const BLOCK: usize = 64 << 10;
/// Ends the name of a list: that of `ram` is `ram.blocks`.
pub const SUFFIX: &str = ".blocks";

/// Begins every list.
const MAGIC: &[u8; 8] = b"LYBLOCK1";
/// Bytes of a hash.
const HASH: usize = 32;

/// Hash of a block.
pub type BlockHash = [u8; HASH];

/// The hashes of a file's blocks, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blocks {
    /// blake3 of each.
    pub hashes: Vec<BlockHash>,
}

impl Blocks {
    /// How many blocks a file of so many bytes has.
    pub fn count(bytes: u64) -> u64 {
        bytes.div_ceil(BLOCK as u64)
    }

    /// Reads a list of a file of so many bytes; `None`: it is none, or of another file.
    pub fn read(list: &[u8], bytes: u64) -> Option<Blocks> {
        let hashes = list.strip_prefix(MAGIC)?;
        let (hashes, rest) = hashes.as_chunks::<HASH>();
        (rest.is_empty() && hashes.len() as u64 == Self::count(bytes)).then(|| Blocks {
            hashes: hashes.to_vec(),
        })
    }

    /// As it is kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.hashes.iter().flatten());
        bytes
    }

    /// How long a list of a file of so many bytes is.
    pub fn list_bytes(bytes: u64) -> u64 {
        Self::count(bytes)
            .saturating_mul(HASH as u64)
            .saturating_add(MAGIC.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_list_is_read_as_written_and_no_other_is(hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..9), cut in 0usize..300) {
            let list = Blocks { hashes };
            let bytes = list.to_bytes();
            let length = list.hashes.len() as u64 * BLOCK as u64;
            prop_assert_eq!(bytes.len() as u64, Blocks::list_bytes(length));
            prop_assert_eq!(Blocks::read(&bytes, length), Some(list.clone()));
            if !list.hashes.is_empty() {
                prop_assert_eq!(Blocks::read(&bytes, length - 1), Some(list.clone()));
            }
            prop_assert_eq!(Blocks::read(&bytes, length + 1), None);
            if cut < bytes.len() {
                prop_assert_eq!(Blocks::read(&bytes[..cut], length), None);
            }
        }
    }
}
