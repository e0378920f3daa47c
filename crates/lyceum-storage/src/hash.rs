//! Hashing large, sparse files.

use lyceum_disk::error::Context;
use lyceum_disk::{Cancel, DiskError, files};
use lyceum_model::blocks::{BLOCK, BlockHash, Blocks};
use lyceum_model::release::FileEntry;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Read at once. Large enough for all cores to get a share of each piece.
const PIECE: usize = 4 << 20;

/// Length and blake3 of a file, with all cores; holes are hashed without being read.
///
/// The file is read and not mapped: a mapped file that another machine cuts short would
/// kill the process.
pub fn hash_file(path: &Path, cancel: &Cancel) -> Result<FileEntry, DiskError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .on("can't open", path)?;
    let meta = file.metadata().on("can't look at", path)?;
    if !meta.is_file() {
        return Err(DiskError::Damaged(format!(
            "{} is not a plain file: remove it and seal again",
            path.display()
        )));
    }
    let length = meta.len();
    let zeros = vec![0u8; PIECE];
    let mut buffer = vec![0u8; PIECE];
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < length {
        let (start, end) = files::next_data(&file, at, length)
            .on("can't read", path)?
            .unwrap_or((length, length));
        while at < start {
            cancel.check()?;
            let n = (start - at).min(PIECE as u64) as usize;
            hasher.update_rayon(&zeros[..n]);
            at += n as u64;
        }
        while at < end {
            cancel.check()?;
            let n = (end - at).min(PIECE as u64) as usize;
            file.read_exact_at(&mut buffer[..n], at)
                .on("can't read", path)?;
            hasher.update_rayon(&buffer[..n]);
            at += n as u64;
        }
    }
    Ok(FileEntry {
        bytes: length,
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

/// The list of a file's blocks; holes are hashed without being read.
pub fn block_list(path: &Path, cancel: &Cancel) -> Result<Blocks, DiskError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .on("can't open", path)?;
    let length = file.metadata().on("can't look at", path)?.len();
    let mut buffer = vec![0u8; BLOCK];
    let hole: BlockHash = *blake3::hash(&buffer).as_bytes();
    let mut list = Blocks::default();
    // What is known to hold data: from where to where.
    let (mut at, mut data) = (0, (0, 0));
    while at < length {
        cancel.check()?;
        let n = (length - at).min(BLOCK as u64);
        if data.1 <= at {
            data = files::next_data(&file, at, length)
                .on("can't read", path)?
                .unwrap_or((length, length));
        }
        if data.0 >= at + n && n == BLOCK as u64 {
            list.hashes.push(hole);
        } else {
            let piece = &mut buffer[..n as usize];
            file.read_exact_at(piece, at).on("can't read", path)?;
            list.hashes.push(*blake3::hash(piece).as_bytes());
        }
        at += n;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn holes_hash_like_the_zeros_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"begin").unwrap();
        file.write_all_at(b"middle", 9_000_001).unwrap();
        file.set_len(20_000_003).unwrap();
        let entry = hash_file(&path, &Cancel::new()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(entry.bytes, 20_000_003);
        assert_eq!(entry.blake3, blake3::hash(&whole).to_hex().to_string());
        let list = block_list(&path, &Cancel::new()).unwrap();
        let expected: Vec<BlockHash> = whole
            .chunks(BLOCK)
            .map(|piece| *blake3::hash(piece).as_bytes())
            .collect();
        assert_eq!(list.hashes, expected);
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(
            hash_file(&path, &cancel),
            Err(DiskError::Cancelled)
        ));
    }
}
