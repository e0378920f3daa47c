//! What can be set. Every knob is one file of the kernel's, so reading and writing is the same
//! for all of them, and a folder can stand for a machine.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that can be set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Knob {
    /// A setting of the kernel, `net.core.rmem_max`.
    Sysctl {
        /// Its name with dots.
        name: String,
    },
    /// What a disk's queue is like.
    Queue {
        /// The whole disk, `sda`.
        disk: String,
        /// Which property.
        attribute: QueueAttribute,
    },
    /// Read-ahead and write-back of one device or NFS mount.
    Bdi {
        /// Its number, `8:16` or `0:52`.
        device: String,
        /// Which property.
        attribute: BdiAttribute,
    },
    /// The largest packet of an interface, bytes.
    Mtu {
        /// `eth1`.
        interface: String,
    },
    /// Threads of the kernel's NFS server.
    NfsdThreads,
}

/// Properties of a disk's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueAttribute {
    /// Which request goes first.
    Scheduler,
    /// KiB that are read beyond what was asked for.
    ReadAheadKb,
}

/// Properties of a device's write-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BdiAttribute {
    /// KiB that are read beyond what was asked for.
    ReadAheadKb,
    /// Percent of the write-back memory that may hold writes for this device.
    MaxRatio,
    /// 1: that share is kept to also when there is memory.
    StrictLimit,
}

/// How a knob may be turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A capacity: only up, number by number.
    Up,
    /// A bound: only down.
    Down,
    /// One of several words, or a switch.
    Choice,
}

/// Whether a word can be part of a path: names come from files, and end in paths.
fn plain(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 64
        && !word.starts_with('.')
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-:!@".contains(c))
}

impl Knob {
    /// A setting of the kernel.
    pub fn sysctl(name: &str) -> Knob {
        Knob::Sysctl { name: name.into() }
    }

    /// Where it is read and written, below the root of the file system and without a leading
    /// slash. `None`: its name is not one.
    pub fn path(&self) -> Option<String> {
        let one = |word: &str, path: String| plain(word).then_some(path);
        match self {
            Knob::Sysctl { name } => {
                // A dot is a folder; names of interfaces, which may hold dots, are not in use here.
                if name.split('.').any(|part| !plain(part)) {
                    return None;
                }
                Some(format!("proc/sys/{}", name.replace('.', "/")))
            }
            Knob::Queue { disk, attribute } => {
                let file = match attribute {
                    QueueAttribute::Scheduler => "scheduler",
                    QueueAttribute::ReadAheadKb => "read_ahead_kb",
                };
                one(disk, format!("sys/block/{disk}/queue/{file}"))
            }
            Knob::Bdi { device, attribute } => {
                let file = match attribute {
                    BdiAttribute::ReadAheadKb => "read_ahead_kb",
                    BdiAttribute::MaxRatio => "max_ratio",
                    BdiAttribute::StrictLimit => "strict_limit",
                };
                one(device, format!("sys/class/bdi/{device}/{file}"))
            }
            Knob::Mtu { interface } => one(interface, format!("sys/class/net/{interface}/mtu")),
            Knob::NfsdThreads => Some("proc/fs/nfsd/threads".into()),
        }
    }

    /// How it may be turned.
    pub fn direction(&self) -> Direction {
        match self {
            Knob::Sysctl { name } if name == CONGESTION => Direction::Choice,
            Knob::Queue {
                attribute: QueueAttribute::Scheduler,
                ..
            }
            | Knob::Bdi {
                attribute: BdiAttribute::StrictLimit,
                ..
            } => Direction::Choice,
            Knob::Bdi {
                attribute: BdiAttribute::MaxRatio,
                ..
            } => Direction::Down,
            Knob::Sysctl { .. }
            | Knob::Queue { .. }
            | Knob::Bdi { .. }
            | Knob::Mtu { .. }
            | Knob::NfsdThreads => Direction::Up,
        }
    }
}

/// The choice of how TCP reacts to a full path.
pub const CONGESTION: &str = "net.ipv4.tcp_congestion_control";

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Knob::Sysctl { name } => f.write_str(name),
            Knob::Queue { disk, attribute } => match attribute {
                QueueAttribute::Scheduler => write!(f, "scheduler of {disk}"),
                QueueAttribute::ReadAheadKb => write!(f, "read-ahead of {disk}, KiB"),
            },
            Knob::Bdi { device, attribute } => match attribute {
                BdiAttribute::ReadAheadKb => write!(f, "read-ahead of mount {device}, KiB"),
                BdiAttribute::MaxRatio => write!(f, "waiting writes of {device}, percent"),
                BdiAttribute::StrictLimit => write!(f, "strict limit of {device}"),
            },
            Knob::Mtu { interface } => write!(f, "MTU of {interface}"),
            Knob::NfsdThreads => f.write_str("threads of the NFS server"),
        }
    }
}

/// What a knob is set to: words or numbers, one space between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Value(String);

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::new(&text)
    }
}

impl Value {
    /// From a kernel's text, or from ours. Of a list with one choice in brackets,
    /// `none [mq-deadline]`, it is the choice.
    pub fn new(text: &str) -> Value {
        let chosen = text
            .split_whitespace()
            .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        Value(match chosen {
            Some(word) => word.to_owned(),
            None => text.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }

    /// A number.
    pub fn number(number: u64) -> Value {
        Value(number.to_string())
    }

    /// Several.
    pub fn numbers(numbers: &[u64]) -> Value {
        let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
        Value(words.join(" "))
    }

    /// Its numbers; `None` when it holds anything else, or nothing.
    pub fn as_numbers(&self) -> Option<Vec<u64>> {
        let numbers: Option<Vec<u64>> = self.0.split(' ').map(|w| w.parse().ok()).collect();
        numbers.filter(|n| !n.is_empty())
    }

    /// The only number in it.
    pub fn as_number(&self) -> Option<u64> {
        match self.as_numbers()?.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// As the kernel takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This value turned towards `wanted` as far as the direction lets it: `None` when it stays.
    pub fn towards(&self, wanted: &Value, direction: Direction) -> Option<Value> {
        let turned = match direction {
            Direction::Choice => wanted.clone(),
            Direction::Up | Direction::Down => {
                let (now, wanted) = (self.as_numbers()?, wanted.as_numbers()?);
                if now.len() != wanted.len() {
                    return None;
                }
                let pick = match direction {
                    Direction::Up => u64::max,
                    _ => u64::min,
                };
                let numbers: Vec<u64> =
                    now.iter().zip(&wanted).map(|(n, w)| pick(*n, *w)).collect();
                Value::numbers(&numbers)
            }
        };
        (turned != *self).then_some(turned)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_the_kernel() {
        for (text, value) in [
            ("4096\t131072\t33554432\n", "4096 131072 33554432"),
            ("none [mq-deadline] kyber bfq\n", "mq-deadline"),
            ("[none]\n", "none"),
            ("cubic\n", "cubic"),
            ("", ""),
        ] {
            assert_eq!(Value::new(text).as_str(), value);
        }
        assert_eq!(Value::new("").as_numbers(), None);
        assert_eq!(Value::new("1 x").as_numbers(), None);
        assert_eq!(Value::new("7").as_number(), Some(7));
    }

    #[test]
    fn only_plain_names_become_paths() {
        assert_eq!(
            Knob::sysctl("net.core.rmem_max").path().as_deref(),
            Some("proc/sys/net/core/rmem_max")
        );
        for bad in ["", "net..core", "net/../../etc", "../x", "a b", "."] {
            assert_eq!(Knob::sysctl(bad).path(), None, "{bad:?}");
        }
        for bad in ["", "../x", "a b", ".", "..", "a/b"] {
            let knob = Knob::Mtu {
                interface: bad.into(),
            };
            assert_eq!(knob.path(), None, "{bad:?}");
        }
        let disk = Knob::Queue {
            disk: "..".into(),
            attribute: QueueAttribute::Scheduler,
        };
        assert_eq!(disk.path(), None);
    }

    proptest! {
        #[test]
        fn up_is_never_down(now in proptest::collection::vec(0u64..1 << 40, 1..4), wanted in proptest::collection::vec(0u64..1 << 40, 1..4)) {
            let value = Value::numbers(&now);
            if let Some(turned) = value.towards(&Value::numbers(&wanted), Direction::Up) {
                let turned = turned.as_numbers().unwrap();
                prop_assert!(turned.iter().zip(&now).all(|(t, n)| t >= n));
                prop_assert!(turned.iter().zip(&now).any(|(t, n)| t > n));
            }
        }

        #[test]
        fn any_text_is_taken_without_a_panic(text in ".*") {
            let value = Value::new(&text);
            prop_assert_eq!(Value::new(value.as_str()), value.clone());
            let _ = (value.as_numbers(), Knob::sysctl(&text).path());
        }
    }
}
