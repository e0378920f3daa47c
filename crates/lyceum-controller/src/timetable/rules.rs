//! What the timetable does, as one of the classroom's settings.

use crate::error::ApiFailure;
use lyceum_api::timetable::{TimetableRules, TimetableRulesPatch};
use lyceum_placement::Mode;
use lyceum_timetable::{HoursRule, LeadRule, Zone};
use serde_json::{Map, Value};
use std::sync::OnceLock;

/// Its key among the settings.
pub const KEY: &str = "timetable";
/// The timetable does not choose the mode.
pub const NO_MODE: &str = "none";

/// Modes that it can choose.
pub fn modes() -> Vec<&'static str> {
    std::iter::once(NO_MODE)
        .chain(
            Mode::ALL
                .into_iter()
                .filter(|m| *m != Mode::Start)
                .map(Mode::as_str),
        )
        .collect()
}

/// The mode of a name; `None`: none is chosen.
pub fn mode(name: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|m| m.as_str() == name)
}

/// The zone of this machine.
fn own_zone() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = jiff::tz::TimeZone::system()
            .iana_name()
            .unwrap_or("UTC")
            .to_owned();
        Zone::named(&name).map_or_else(|_| "UTC".into(), |z| z.name().to_owned())
    })
}

/// What holds until somebody changes it.
pub fn default_rules() -> TimetableRules {
    let (hours, lead) = (HoursRule::default(), LeadRule::default());
    TimetableRules {
        zone: own_zone().into(),
        acts: true,
        lead_floor_minutes: lead.floor_minutes,
        lead_ceiling_minutes: lead.ceiling_minutes,
        lead_percent: lead.percent,
        hosts_before_minutes: 10,
        class_before_minutes: hours.before_minutes,
        class_after_minutes: hours.after_minutes,
        class_bridge_minutes: hours.bridge_minutes,
        class_mode: Mode::MemoryBalance.as_str().into(),
        other_mode: Mode::PowerSaving.as_str().into(),
    }
}

/// Out of the settings' rows. What this version does not know is passed over.
pub fn from_rows(rows: &Map<String, Value>) -> Result<TimetableRules, ApiFailure> {
    let mut all = match serde_json::to_value(default_rules()) {
        Ok(Value::Object(all)) => all,
        _ => Map::new(),
    };
    if let Some(Value::Object(set)) = rows.get(KEY) {
        for (key, value) in set {
            if let Some(slot) = all.get_mut(key) {
                *slot = value.clone();
            }
        }
    }
    serde_json::from_value(Value::Object(all)).map_err(|e| {
        ApiFailure::internal(format!("the store's timetable rules can't be read: {e}"))
    })
}

/// A zone that the system knows.
pub fn zone(name: &str) -> Result<Zone, ApiFailure> {
    Zone::named(name).map_err(|e| ApiFailure::invalid(e.to_string()))
}

/// With what a patch changes, if it can be so.
pub fn patched(
    mut rules: TimetableRules,
    patch: TimetableRulesPatch,
) -> Result<TimetableRules, ApiFailure> {
    let number = |name: &str, slot: &mut u32, new: Option<u32>, least: u32, most: u32| match new {
        Some(value) if !(least..=most).contains(&value) => Err(ApiFailure::invalid(format!(
            "{name} is {least} to {most}, not {value}"
        ))),
        Some(value) => {
            *slot = value;
            Ok(())
        }
        None => Ok(()),
    };
    if let Some(name) = &patch.zone {
        rules.zone = zone(name)?.name().to_owned();
    }
    if let Some(acts) = patch.acts {
        rules.acts = acts;
    }
    number(
        "lead_floor_minutes",
        &mut rules.lead_floor_minutes,
        patch.lead_floor_minutes,
        0,
        240,
    )?;
    number(
        "lead_ceiling_minutes",
        &mut rules.lead_ceiling_minutes,
        patch.lead_ceiling_minutes,
        0,
        240,
    )?;
    number(
        "lead_percent",
        &mut rules.lead_percent,
        patch.lead_percent,
        100,
        1000,
    )?;
    number(
        "hosts_before_minutes",
        &mut rules.hosts_before_minutes,
        patch.hosts_before_minutes,
        0,
        240,
    )?;
    number(
        "class_before_minutes",
        &mut rules.class_before_minutes,
        patch.class_before_minutes,
        0,
        720,
    )?;
    number(
        "class_after_minutes",
        &mut rules.class_after_minutes,
        patch.class_after_minutes,
        0,
        720,
    )?;
    number(
        "class_bridge_minutes",
        &mut rules.class_bridge_minutes,
        patch.class_bridge_minutes,
        0,
        1440,
    )?;
    if rules.lead_floor_minutes > rules.lead_ceiling_minutes {
        return Err(ApiFailure::invalid(
            "lead_floor_minutes must not be above lead_ceiling_minutes",
        ));
    }
    for (slot, new) in [
        (&mut rules.class_mode, patch.class_mode),
        (&mut rules.other_mode, patch.other_mode),
    ] {
        if let Some(name) = new {
            if !modes().contains(&name.as_str()) {
                return Err(ApiFailure::invalid(format!(
                    "there is no mode {:?}: give one of {}",
                    name.chars().take(40).collect::<String>(),
                    modes().join(", ")
                )));
            }
            *slot = name;
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_survive_the_store_and_ranges_are_kept() {
        let patch: TimetableRulesPatch = serde_json::from_value(json!({
            "zone": "europe/berlin", "lead_floor_minutes": 3, "class_mode": "compute-balance", "other_mode": "none",
        }))
        .unwrap();
        let rules = patched(default_rules(), patch).unwrap();
        assert_eq!(rules.zone, "Europe/Berlin");
        let mut rows = Map::new();
        let mut stored = serde_json::to_value(&rules).unwrap();
        stored["of_a_newer_version"] = json!(1);
        rows.insert(KEY.into(), stored);
        assert_eq!(from_rows(&rows).unwrap(), rules);
        assert_eq!(from_rows(&Map::new()).unwrap(), default_rules());
        for bad in [
            json!({"zone": "Moon/Base"}),
            json!({"lead_percent": 99}),
            json!({"lead_floor_minutes": 46}),
            json!({"class_bridge_minutes": 1441}),
            json!({"class_mode": "start"}),
            json!({"other_mode": ""}),
        ] {
            let patch = serde_json::from_value(bad.clone()).unwrap();
            assert!(patched(default_rules(), patch).is_err(), "{bad} was taken");
        }
        assert_eq!(mode(&rules.class_mode), Some(Mode::ComputeBalance));
        assert_eq!(mode(&rules.other_mode), None);
    }
}
