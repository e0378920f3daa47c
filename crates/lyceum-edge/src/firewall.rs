//! One ruleset in the kernel: checked, put in at once, and compared with what is there later.

use crate::tool::{EdgeError, Machine, NFT, Result};
use lyceum_net::gateway::{Learned, NameSet};
use serde_json::Value;
use std::collections::BTreeMap;

/// A ruleset and the tables it consists of.
pub(crate) struct Firewall {
    machine: Machine,
    /// Family and name.
    tables: Vec<(&'static str, &'static str)>,
    /// What was put in last, and how the kernel tells it.
    applied: Option<(String, Vec<String>)>,
}

impl Firewall {
    pub(crate) fn new(machine: Machine, tables: Vec<(&'static str, &'static str)>) -> Firewall {
        Firewall {
            machine,
            tables,
            applied: None,
        }
    }

    /// Makes the ruleset the one in force, unless it is.
    pub(crate) async fn apply(&mut self, ruleset: &str) -> Result<()> {
        if self
            .applied
            .as_ref()
            .is_some_and(|(text, _)| text == ruleset)
        {
            return Ok(());
        }
        // What the kernel would not take must not leave half of it behind: a transaction it is, and
        // a check before it finds out about words that this nft does not know.
        self.machine
            .run(NFT, &["--check", "--file", "-"], ruleset)
            .await?;
        self.applied = None;
        self.machine.run(NFT, &["--file", "-"], ruleset).await?;
        let seen = self.seen().await?;
        self.applied = Some((ruleset.to_owned(), seen));
        Ok(())
    }

    /// What differs from what was put in, in words; puts it right.
    pub(crate) async fn repair(&mut self) -> Result<Option<String>> {
        let Some((ruleset, before)) = self.applied.clone() else {
            return Ok(None);
        };
        let now = match self.seen().await {
            Ok(now) => now,
            // Most likely it is not there at all any more.
            Err(EdgeError::Failed { .. }) => Vec::new(),
            Err(e) => return Err(e),
        };
        if now == before {
            return Ok(None);
        }
        let words = difference(&before, &now);
        self.applied = None;
        self.apply(&ruleset).await?;
        Ok(Some(words))
    }

    /// Addresses that dnsmasq put into the tables' sets.
    pub(crate) async fn learned(&self) -> Learned {
        let mut found = Learned::new();
        for object in self.objects().await.unwrap_or_default() {
            let Some(set) = object.get("set") else {
                continue;
            };
            let Some(name) = set["name"].as_str().filter(|n| NameSet::is_one(n)) else {
                continue;
            };
            let elements = set["elem"].as_array().into_iter().flatten();
            let addresses = elements.filter_map(|e| e.as_str()?.parse().ok()).collect();
            found.insert(name.to_owned(), addresses);
        }
        found
    }

    /// Takes the tables away.
    pub(crate) async fn remove(&mut self) -> Result<()> {
        self.applied = None;
        let text: String = self
            .tables
            .iter()
            .map(|(family, name)| format!("table {family} {name}\ndelete table {family} {name}\n"))
            .collect();
        self.machine
            .run(NFT, &["--file", "-"], &text)
            .await
            .map(drop)
    }

    async fn objects(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for (family, name) in &self.tables {
            let text = self
                .machine
                .run(NFT, &["--json", "list", "table", family, name], "")
                .await?;
            let mut said: Value = serde_json::from_str(&text).map_err(|e| EdgeError::Failed {
                what: format!("reading what nft says of table {name}"),
                said: e.to_string(),
            })?;
            if let Some(objects) = said["nftables"].as_array_mut() {
                all.append(objects);
            }
        }
        Ok(all)
    }

    /// Every object as one line, without what differs although nobody changed anything.
    async fn seen(&self) -> Result<Vec<String>> {
        let objects = self.objects().await?;
        let mut lines = Vec::with_capacity(objects.len());
        for mut object in objects {
            if object.get("metainfo").is_some() {
                continue;
            }
            if let Some(set) = object.get_mut("set")
                && set["name"].as_str().is_some_and(NameSet::is_one)
            {
                // dnsmasq's.
                set["elem"] = Value::Null;
            }
            for kind in ["table", "chain", "set", "map", "rule"] {
                if let Some(fields) = object.get_mut(kind).and_then(Value::as_object_mut) {
                    fields.remove("handle");
                }
            }
            lines.push(object.to_string());
        }
        Ok(lines)
    }
}

fn difference(before: &[String], now: &[String]) -> String {
    let mut count: BTreeMap<&str, i64> = BTreeMap::new();
    before
        .iter()
        .for_each(|l| *count.entry(l).or_default() -= 1);
    now.iter().for_each(|l| *count.entry(l).or_default() += 1);
    let of = |sign: i64| {
        let all: Vec<String> = count
            .iter()
            .filter(|(_, n)| n.signum() == sign)
            .map(|(line, _)| name(line))
            .collect();
        (
            all.len(),
            all.into_iter().take(3).collect::<Vec<_>>().join(", "),
        )
    };
    let ((gone, what_gone), (new, what_new)) = (of(-1), of(1));
    match (gone, new) {
        _ if now.is_empty() => "the firewall's tables were gone".into(),
        (0, 0) => "the order of the firewall's rules was changed".into(),
        (0, _) => format!("added to the firewall: {what_new} ({new} in all)"),
        (_, 0) => format!("gone from the firewall: {what_gone} ({gone} in all)"),
        _ => format!(
            "changed in the firewall: {what_gone} gone, {what_new} new ({gone} and {new} in all)"
        ),
    }
}

fn name(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    let Some((kind, fields)) = value.as_object().and_then(|o| o.iter().next()) else {
        return "something".into();
    };
    match (
        kind.as_str(),
        fields["chain"].as_str(),
        fields["name"].as_str(),
    ) {
        ("rule", Some(chain), _) => format!("a rule of chain {chain}"),
        (kind, _, Some(name)) => format!("{kind} {name}"),
        (kind, _, _) => format!("a {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_in_words() {
        let rule = |chain: &str, n: u32| format!(r#"{{"rule":{{"chain":"{chain}","n":{n}}}}}"#);
        let set = r#"{"set":{"name":"doors4"}}"#.to_owned();
        let before = vec![set.clone(), rule("out_1", 1), rule("out_1", 2)];
        let check = |now: &[String], expect: &str| assert_eq!(difference(&before, now), expect);
        check(&[], "the firewall's tables were gone");
        check(
            &before[..2],
            "gone from the firewall: a rule of chain out_1 (1 in all)",
        );
        check(
            &[set, rule("out_1", 2), rule("out_1", 1)],
            "the order of the firewall's rules was changed",
        );
        let more = [before.clone(), vec![rule("x", 3)]].concat();
        check(&more, "added to the firewall: a rule of chain x (1 in all)");
    }
}
