//! What LVM's programs report, read strictly: a field that is missing, added or no number is
//! an error and not a guess.

use crate::DiskError;
use crate::tool;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vg {
    /// LVM's own UUID, which stays when names change.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Size of an extent in bytes; volumes are whole numbers of them.
    pub extent: u64,
    /// Physical volumes that are gone.
    pub missing: u64,
}

/// A physical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pv {
    /// LVM's own UUID, which stays when device names change.
    pub uuid: String,
    /// Its device at this moment.
    pub device: String,
    /// Of which group, by name; empty: none.
    pub group: String,
    /// Bytes.
    pub size: u64,
    /// Bytes no volume has taken.
    pub free: u64,
    /// Tags.
    pub tags: Vec<String>,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Lv {
    /// LVM's own UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Bytes: for a classic snapshot of its store, for a pool of its data.
    pub size: u64,
    /// What it is a snapshot of.
    pub origin: Option<String>,
    /// The pool it lives in.
    pub pool: Option<String>,
    /// How full a snapshot's store or a pool's data is, in percent.
    pub data_percent: Option<f64>,
    /// How full a pool's metadata is, in percent.
    pub metadata_percent: Option<f64>,
    /// Bytes of a pool's metadata.
    pub metadata_size: Option<u64>,
    /// A classic snapshot that was full once: its content is lost.
    pub invalid: bool,
    /// Whether it is active.
    pub active: bool,
    /// Tags.
    pub tags: Vec<String>,
}

impl Lv {
    /// Bytes taken of a snapshot's store or a pool's data.
    pub fn used(&self) -> u64 {
        share(self.size, self.data_percent.unwrap_or(0.0))
    }
}

/// `percent` of `bytes`, rounded up.
pub(crate) fn share(bytes: u64, percent: f64) -> u64 {
    ((bytes as f64) * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64
}

#[derive(Deserialize)]
struct Report<T> {
    report: Vec<T>,
    /// With `log/report_command_log` on.
    #[serde(default, rename = "log")]
    _log: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vgs {
    vg: Vec<RawVg>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVg {
    vg_uuid: String,
    vg_name: String,
    vg_extent_size: String,
    vg_missing_pv_count: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pvs {
    pv: Vec<RawPv>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPv {
    pv_uuid: String,
    pv_name: String,
    vg_name: String,
    pv_size: String,
    pv_free: String,
    pv_tags: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lvs {
    lv: Vec<RawLv>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLv {
    lv_uuid: String,
    lv_name: String,
    lv_size: String,
    origin: String,
    pool_lv: String,
    data_percent: String,
    metadata_percent: String,
    lv_metadata_size: String,
    lv_snapshot_invalid: String,
    lv_active: String,
    lv_tags: String,
}

const VG_FIELDS: &str = "vg_uuid,vg_name,vg_extent_size,vg_missing_pv_count";
const PV_FIELDS: &str = "pv_uuid,pv_name,vg_name,pv_size,pv_free,pv_tags";
const LV_FIELDS: &str = "lv_uuid,lv_name,lv_size,origin,pool_lv,data_percent,metadata_percent,lv_metadata_size,lv_snapshot_invalid,lv_active,lv_tags";

fn ask<T: DeserializeOwned>(
    program: &str,
    fields: &str,
    more: &[&str],
) -> Result<Vec<T>, DiskError> {
    let mut arguments = vec![
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        fields,
    ];
    arguments.extend(more);
    let text = tool::must("can't ask LVM", program, "lvm2", &arguments)?;
    parse(program, &text)
}

fn parse<T: DeserializeOwned>(program: &str, text: &str) -> Result<Vec<T>, DiskError> {
    serde_json::from_str::<Report<T>>(text)
        .map(|report| report.report)
        .map_err(|e| odd(program, &e.to_string()))
}

fn odd(program: &str, why: &str) -> DiskError {
    DiskError::Tool(format!(
        "{program} says something unexpected ({why}): this version of LVM is not known to work; Debian 12 and 13 have one that does"
    ))
}

fn number(program: &str, text: &str) -> Result<u64, DiskError> {
    text.parse()
        .map_err(|_| odd(program, &format!("{text:?} is no number of bytes")))
}

fn percent(text: &str) -> Result<Option<f64>, DiskError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(percent) if percent.is_finite() => Ok(Some(percent)),
        _ => Err(odd("lvs", &format!("{text:?} is no percentage"))),
    }
}

fn some(text: String) -> Option<String> {
    // Hidden volumes are reported in brackets.
    let text = text.trim_matches(['[', ']']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn tags(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// All volume groups.
pub fn groups() -> Result<Vec<Vg>, DiskError> {
    let found: Vec<Vgs> = ask("vgs", VG_FIELDS, &[])?;
    found
        .into_iter()
        .flat_map(|part| part.vg)
        .map(|raw| {
            Ok(Vg {
                uuid: raw.vg_uuid,
                name: raw.vg_name,
                extent: number("vgs", &raw.vg_extent_size)?,
                missing: number("vgs", &raw.vg_missing_pv_count)?,
            })
        })
        .collect()
}

/// All physical volumes, those of no group too.
pub fn physical() -> Result<Vec<Pv>, DiskError> {
    let found: Vec<Pvs> = ask("pvs", PV_FIELDS, &[])?;
    found
        .into_iter()
        .flat_map(|part| part.pv)
        .map(|raw| {
            Ok(Pv {
                uuid: raw.pv_uuid,
                device: raw.pv_name,
                group: raw.vg_name,
                size: number("pvs", &raw.pv_size)?,
                free: number("pvs", &raw.pv_free)?,
                tags: tags(&raw.pv_tags),
            })
        })
        .collect()
}

/// The visible volumes of a group.
pub fn volumes(group: &str) -> Result<Vec<Lv>, DiskError> {
    let found: Vec<Lvs> = ask("lvs", LV_FIELDS, &[group])?;
    found
        .into_iter()
        .flat_map(|part| part.lv)
        .map(volume)
        .collect()
}

fn volume(raw: RawLv) -> Result<Lv, DiskError> {
    Ok(Lv {
        uuid: raw.lv_uuid,
        name: raw.lv_name,
        size: number("lvs", &raw.lv_size)?,
        origin: some(raw.origin),
        pool: some(raw.pool_lv),
        data_percent: percent(&raw.data_percent)?,
        metadata_percent: percent(&raw.metadata_percent)?,
        metadata_size: match raw.lv_metadata_size.as_str() {
            "" => None,
            text => Some(number("lvs", text)?),
        },
        invalid: match raw.lv_snapshot_invalid.as_str() {
            // Not a classic snapshot, or not active.
            "" | "unknown" => false,
            "snapshot invalid" => true,
            other => return Err(odd("lvs", &format!("a snapshot is {other:?}"))),
        },
        active: raw.lv_active == "active",
        tags: tags(&raw.lv_tags),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = r#"{"report":[{"lv":[{"lv_uuid":"a-b","lv_name":"d.1","lv_size":"67108864",
        "origin":"r.x","pool_lv":"","data_percent":"12.50","metadata_percent":"",
        "lv_metadata_size":"","lv_snapshot_invalid":"","lv_active":"active","lv_tags":"a,b=c"}]}]}"#;

    fn read(text: &str) -> Result<Vec<Lv>, DiskError> {
        parse::<Lvs>("lvs", text)?
            .into_iter()
            .flat_map(|part| part.lv)
            .map(volume)
            .collect()
    }

    #[test]
    fn a_report_is_read_and_an_odd_one_refused() {
        let lv = &read(ONE).unwrap()[0];
        assert_eq!(lv.origin.as_deref(), Some("r.x"));
        assert_eq!(lv.used(), 8 << 20);
        assert_eq!(lv.tags, ["a", "b=c"]);
        for (from, to) in [
            ("\"67108864\"", "\"64m\""),
            ("\"12.50\"", "\"much\""),
            ("\"12.50\"", "\"nan\""),
            ("\"lv_active\"", "\"lv_else\""),
            (
                "\"lv_snapshot_invalid\":\"\"",
                "\"lv_snapshot_invalid\":\"maybe\"",
            ),
            ("\"origin\":\"r.x\",", ""),
            ("\"report\"", "\"answer\""),
        ] {
            let odd = ONE.replace(from, to);
            assert_ne!(odd, ONE);
            let error = read(&odd).unwrap_err().to_string();
            assert!(error.contains("LVM"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_report_makes_it_panic(text in ".{0,200}", size in ".{0,12}", percent in ".{0,8}") {
            let _ = read(&text);
            if let (Ok(size), Ok(percent)) = (serde_json::to_string(&size), serde_json::to_string(&percent)) {
                let _ = read(&ONE.replace("\"67108864\"", &size).replace("\"12.50\"", &percent));
            }
        }
    }
}
