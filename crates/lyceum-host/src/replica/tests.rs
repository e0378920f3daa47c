//! Copies that are broken off, damage, differences and evictions.
#![allow(clippy::unwrap_used)]

use super::*;
use lyceum_model::blocks::{BLOCK, Blocks, SUFFIX};
use lyceum_model::release::FileEntry;
use lyceum_model::{Accelerator, MachineSize, Platform, SealedMemory};
use std::time::Instant;

/// A file server's tier, and this host's disk.
struct Lab {
    dir: tempfile::TempDir,
    mib: u64,
}

/// Bytes that look like nothing else.
fn noise(seed: u64, blocks: usize) -> Vec<u8> {
    let mut out = vec![0; blocks * BLOCK];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Lab { dir, mib: 1024 }
    }

    async fn replica(&self) -> Replica {
        let config = ReplicaConfig {
            dir: self.dir.path().join("own"),
            mib: self.mib,
            days: 30,
        };
        Replica::open(&config, &self.dir.path().join("state"))
            .await
            .unwrap()
    }

    /// A release as the storage agent makes it.
    fn release(&self, disk: &[u8], ram: &[u8], lists: bool) -> (ReleaseId, PathBuf) {
        let folder = self.dir.path().join("new");
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, content: &[u8]| {
            std::fs::write(folder.join(name), content).unwrap();
            if lists {
                let hashes = content
                    .chunks(BLOCK)
                    .map(|piece| *blake3::hash(piece).as_bytes())
                    .collect();
                let list = Blocks { hashes }.to_bytes();
                std::fs::write(folder.join(format!("{name}{SUFFIX}")), list).unwrap();
            }
            FileEntry {
                bytes: content.len() as u64,
                blake3: blake3::hash(content).to_hex().to_string(),
            }
        };
        let manifest = ReleaseManifest {
            format: ReleaseManifest::FORMAT,
            sealed_at: 1,
            disk: file(layout::RELEASE_DISK, disk),
            virtual_bytes: 4096,
            memory: Some(SealedMemory {
                size: MachineSize {
                    vcpus: 1,
                    memory_mib: 128,
                },
                platform: Platform {
                    qemu_version: "0.0.0".into(),
                    machine_type: "simulated-1".into(),
                    cpu_model: "simulated".into(),
                    accelerator: Accelerator::Simulated,
                },
                ram: file(layout::RELEASE_RAM, ram),
                device_state: file(layout::RELEASE_DEVICE_STATE, b"some devices"),
                guest_helper: true,
            }),
            cold_reason: None,
        };
        let json = manifest.canonical_json().unwrap();
        std::fs::write(folder.join(layout::RELEASE_MANIFEST), &json).unwrap();
        let id: ReleaseId = blake3::hash(&json).to_hex().to_string().parse().unwrap();
        let to = self.dir.path().join(id.as_str());
        std::fs::rename(&folder, &to).unwrap();
        (id, to)
    }
}

fn nobody() -> HashSet<ReleaseId> {
    HashSet::new()
}

fn same(here: &Path, there: &Path) {
    for name in [
        layout::RELEASE_DISK,
        layout::RELEASE_RAM,
        layout::RELEASE_DEVICE_STATE,
        layout::RELEASE_MANIFEST,
    ] {
        let (a, b) = (here.join(name), there.join(name));
        assert_eq!(
            std::fs::read(a).unwrap(),
            std::fs::read(b).unwrap(),
            "{name}"
        );
    }
}

/// Needed so many seconds ago.
fn age(folder: &Path, seconds: u64) {
    let file = std::fs::File::create(folder.join(NEEDED)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
        .unwrap();
}

#[tokio::test]
async fn the_next_release_is_read_where_it_differs() {
    let lab = Lab::new();
    let mut disk = noise(1, 40);
    let mut ram = noise(2, 20);
    ram[5 * BLOCK..9 * BLOCK].fill(0);
    let (first, from) = lab.release(&disk, &ram, true);
    let replica = lab.replica().await;
    replica
        .fill(&first, &from, Need::Prepared, &nobody())
        .unwrap();
    let (folder, _) = replica.verified(&first).await.unwrap();
    same(&folder, &from);
    assert_eq!(replica.facts().from_here_bytes, 0);
    // A hole stays one.
    assert!(on_disk(&folder.join(layout::RELEASE_RAM)) <= on_disk(&from.join(layout::RELEASE_RAM)));

    // One block changed, one was put in before all others, and the end is short of a block.
    disk[7 * BLOCK] ^= 1;
    let mut longer = noise(3, 1);
    longer.extend(&disk);
    longer.extend(b"end");
    let (second, from) = lab.release(&longer, &ram, true);
    let read = replica.facts().from_server_bytes;
    replica
        .fill(&second, &from, Need::Prepared, &nobody())
        .unwrap();
    let (folder, _) = replica.verified(&second).await.unwrap();
    same(&folder, &from);
    let facts = replica.facts();
    let block = BLOCK as u64;
    let (read, taken) = (facts.from_server_bytes - read, facts.from_here_bytes);
    assert_eq!(
        read,
        2 * block + 3 + 12,
        "two blocks, the end, and the devices"
    );
    assert_eq!(taken, (39 + 20) * block);

    // Blocks here that are not what they were are not taken, and neither is the file.
    let rotten = replica.path(&second).join(layout::RELEASE_DISK);
    let mut bytes = std::fs::read(&rotten).unwrap();
    bytes[3 * BLOCK + 9] ^= 1;
    std::fs::write(&rotten, &bytes).unwrap();
    longer[0] ^= 1;
    let (third, from) = lab.release(&longer, &ram, true);
    replica
        .fill(&third, &from, Need::Prepared, &nobody())
        .unwrap();
    let (folder, _) = replica.verified(&third).await.unwrap();
    same(&folder, &from);
    assert!(replica.verified(&second).await.is_none());
    assert_eq!(replica.facts().damaged, 1);
    assert!(replica.facts().trouble.unwrap().contains("damaged"));
    assert!(!replica.path(&second).exists());
}

#[tokio::test]
async fn a_copy_that_was_broken_off_is_not_used_and_gone_on_with() {
    let lab = Lab::new();
    let (disk, ram) = (noise(1, 64), noise(2, 8));
    for lists in [true, false] {
        let (id, from) = lab.release(&disk, if lists { &ram } else { &disk }, lists);
        let replica = lab.replica().await;
        // In its middle: the copy ends where it is.
        std::thread::scope(|scope| {
            let filled = scope.spawn(|| replica.fill(&id, &from, Need::Prepared, &nobody()));
            let deadline = Instant::now() + Duration::from_secs(60);
            while replica.filling.done.load(Ordering::Relaxed) < BLOCK as u64
                && !filled.is_finished()
            {
                assert!(Instant::now() < deadline);
                std::hint::spin_loop();
            }
            replica.stop();
            let _ = filled.join().unwrap();
        });
        let partial = replica.partial(&id);
        if !replica.path(&id).exists() {
            assert!(replica.verified(&id).await.is_none());
        } else {
            // It was quicker than we: cut what it made, as a power cut would have.
            std::fs::rename(replica.path(&id), &partial).unwrap();
            std::fs::remove_file(partial.join(layout::RELEASE_RAM)).unwrap();
        }
        drop(replica);
        // A machine that lost power may have lost the end of a block, too.
        let path = partial.join(layout::RELEASE_DISK);
        let length = std::fs::metadata(&path).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length - 17).unwrap();

        let replica = lab.replica().await;
        assert!(replica.complete().iter().all(|c| *c != id));
        replica.fill(&id, &from, Need::Prepared, &nobody()).unwrap();
        let (folder, _) = replica.verified(&id).await.unwrap();
        same(&folder, &from);
        assert!(!partial.exists());
        let all = (disk.len() + if lists { ram.len() } else { disk.len() } + 12) as u64;
        let read = replica.facts().from_server_bytes + replica.facts().from_here_bytes;
        assert!(read < all, "{read} of {all} were read again");
    }
}

#[tokio::test]
async fn damage_in_half_a_copy_or_in_a_list_is_found() {
    let lab = Lab::new();
    let (disk, ram) = (noise(1, 16), noise(2, 4));
    for (n, lists) in [true, false].into_iter().enumerate() {
        let ram = &ram[n..];
        let (id, from) = lab.release(&disk, ram, lists);
        let replica = lab.replica().await;
        // Half of it is there, and one byte of that is wrong.
        let partial = replica.partial(&id);
        std::fs::create_dir_all(&partial).unwrap();
        let mut half = disk[..8 * BLOCK].to_vec();
        half[3 * BLOCK] ^= 1;
        std::fs::write(partial.join(layout::RELEASE_DISK), &half).unwrap();
        replica.fill(&id, &from, Need::Prepared, &nobody()).unwrap();
        same(&replica.verified(&id).await.unwrap().0, &from);
    }
    // A list that says of one file what is true of another.
    let (id, from) = lab.release(&noise(5, 16), &ram, true);
    let list = from.join(format!("{}{SUFFIX}", layout::RELEASE_DISK));
    let hashes = disk.chunks(BLOCK).map(|p| *blake3::hash(p).as_bytes());
    let wrong = Blocks {
        hashes: hashes.collect(),
    };
    std::fs::write(&list, wrong.to_bytes()).unwrap();
    let replica = lab.replica().await;
    replica.fill(&id, &from, Need::Prepared, &nobody()).unwrap();
    same(&replica.verified(&id).await.unwrap().0, &from);

    // What is wrong on the file server is not copied, whatever it says.
    let (id, from) = lab.release(&noise(6, 4), &ram, true);
    let path = from.join(layout::RELEASE_DISK);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let said = replica.fill(&id, &from, Need::Prepared, &nobody());
    assert!(
        said.unwrap_err()
            .message
            .contains("not what its manifest says")
    );
    assert!(!replica.path(&id).exists());
    std::fs::write(&path, &bytes[1..]).unwrap();
    replica
        .fill(&id, &from, Need::Prepared, &nobody())
        .unwrap_err();
    assert!(replica.facts().trouble.is_some());
}

#[tokio::test]
async fn what_was_needed_longest_ago_makes_room() {
    let mut lab = Lab::new();
    // Room for two of them and a bit.
    lab.mib = 5;
    let blocks = (2 << 20) / BLOCK;
    let make = |n: u64| lab.release(&noise(n, blocks), b"ram", true);
    let (a, b, c, d) = (make(1), make(2), make(3), make(4));
    let replica = lab.replica().await;
    let fill = |r: &(ReleaseId, PathBuf), need, running: &HashSet<ReleaseId>| {
        replica.fill(&r.0, &r.1, need, running)
    };
    fill(&a, Need::Prepared, &nobody()).unwrap();
    fill(&b, Need::Prepared, &nobody()).unwrap();
    age(&replica.path(&a.0), 100);
    age(&replica.path(&b.0), 7200);
    // A desktop that was started from the tier does not drive out what a class just used.
    age(&replica.path(&b.0), 50);
    let said = fill(&c, Need::Used, &nobody()).unwrap_err();
    assert!(said.message.contains("no room"), "{said}");
    // What is in use stays even when it is oldest.
    age(&replica.path(&b.0), 7200);
    let running = HashSet::from([b.0.clone()]);
    fill(&c, Need::Prepared, &running).unwrap();
    let there: HashSet<ReleaseId> = replica.complete().into_iter().collect();
    assert_eq!(there, HashSet::from([b.0.clone(), c.0.clone()]));
    fill(&d, Need::Used, &nobody()).unwrap();
    let there: HashSet<ReleaseId> = replica.complete().into_iter().collect();
    assert_eq!(there, HashSet::from([c.0.clone(), d.0.clone()]));
    assert_eq!(replica.facts().evicted, 2);
    assert!(replica.facts().used_bytes <= 5 << 20);
    // A month is enough, also where there is room.
    age(&replica.path(&d.0), 31 * 86_400);
    let small = lab.release(b"small", b"ram", true);
    fill(&small, Need::Prepared, &nobody()).unwrap();
    assert!(!replica.path(&d.0).exists());
    // And what can't fit at all says so.
    let large = lab.release(&noise(9, 3 * blocks), b"ram", true);
    let said = fill(&large, Need::Prepared, &nobody()).unwrap_err();
    assert!(said.message.contains("raise mib"), "{said}");
}

#[tokio::test]
async fn leftovers_are_cleared_up_and_a_folder_has_one_agent() {
    let lab = Lab::new();
    let own = lab.dir.path().join("own");
    for folder in ["releases/nonsense name", "partial/.gone-x"] {
        std::fs::create_dir_all(own.join(folder)).unwrap();
    }
    let replica = lab.replica().await;
    assert!(folders(&own.join("releases")).is_empty() && folders(&own.join("partial")).is_empty());
    let again = nix::fcntl::Flock::lock(
        std::fs::File::open(own.join("agent.lock")).unwrap(),
        nix::fcntl::FlockArg::LockExclusiveNonblock,
    );
    assert!(again.is_err());
    drop(replica);
}
