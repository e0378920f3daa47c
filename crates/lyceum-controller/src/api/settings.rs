//! Settings of the whole classroom.

use crate::app::App;
use crate::audit;
use crate::auth::Actor;
use crate::error::{ApiFailure, Json};
use axum::extract::State;
use lyceum_api::{Settings, SettingsPatch};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Its routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_settings, patch_settings))
}

/// Settings out of the store's rows. A key that this version doesn't know is passed over:
/// a newer one may have written it.
pub fn from_rows(rows: Map<String, Value>) -> Result<Settings, ApiFailure> {
    let mut all = match serde_json::to_value(Settings::default()) {
        Ok(Value::Object(all)) => all,
        _ => Map::new(),
    };
    for (key, value) in rows {
        if let Some(slot) = all.get_mut(&key) {
            *slot = value;
        }
    }
    serde_json::from_value(Value::Object(all))
        .map_err(|e| ApiFailure::internal(format!("the store's settings can't be read: {e}")))
}

/// The settings.
#[utoipa::path(get, path = "/settings", responses((status = 200, body = Settings)))]
async fn get_settings(State(app): State<App>, actor: Actor) -> Result<Json<Settings>, ApiFailure> {
    actor.require_admin()?;
    app.settings().await.map(Json)
}

/// Change some of them.
#[utoipa::path(patch, path = "/settings", request_body = SettingsPatch, responses((status = 200, body = Settings)))]
async fn patch_settings(
    State(app): State<App>,
    actor: Actor,
    Json(patch): Json<SettingsPatch>,
) -> Result<Json<Settings>, ApiFailure> {
    actor.require_admin()?;
    let changes = checked(patch)?;
    let mut tx = app.store.begin_write().await?;
    let before = from_rows(lyceum_store::settings::all_tx(&mut tx).await?)?;
    let before = serde_json::to_value(before).map_err(ApiFailure::internal)?;
    for (key, value) in &changes {
        let old = before.get(*key);
        if old == Some(value) {
            continue;
        }
        lyceum_store::settings::set(&mut tx, key, value).await?;
        let was = old.map(Value::to_string).unwrap_or_default();
        audit::write(
            &mut tx,
            &actor,
            "settings.change",
            format!("settings/{key}"),
            format!("{was} → {value}"),
        )
        .await?;
    }
    let after = from_rows(lyceum_store::settings::all_tx(&mut tx).await?)?;
    tx.commit().await?;
    Ok(Json(after))
}

fn checked(patch: SettingsPatch) -> Result<Vec<(&'static str, Value)>, ApiFailure> {
    let mut out = Vec::new();
    if let Some(name) = patch.classroom_name {
        out.push((
            "classroom_name",
            json!(lyceum_model::name::title(
                "the classroom's name",
                &name,
                80
            )?),
        ));
    }
    if let Some(value) = patch.overcommit {
        if !(1.0..=64.0).contains(&value) {
            return Err(ApiFailure::invalid(format!(
                "overcommit is 1 to 64, not {value}"
            )));
        }
        out.push(("overcommit", json!(value)));
    }
    let mut number = |key: &'static str, value: Option<u32>, least: u32, most: u32| match value {
        Some(value) if !(least..=most).contains(&value) => Err(ApiFailure::invalid(format!(
            "{key} is {least} to {most}, not {value}"
        ))),
        Some(value) => {
            out.push((key, json!(value)));
            Ok(())
        }
        None => Ok(()),
    };
    number("seats_per_host", patch.seats_per_host, 0, 10_000)?;
    number("starts_at_once", patch.starts_at_once, 1, 64)?;
    number("fork_timeout_s", patch.fork_timeout_s, 5, 3600)?;
    number("cold_timeout_s", patch.cold_timeout_s, 10, 7200)?;
    number(
        "session_idle_minutes",
        patch.session_idle_minutes,
        1,
        60 * 24 * 90,
    )?;
    number("moves_per_host", patch.moves_per_host, 1, 32)?;
    number("move_mbit_per_s", patch.move_mbit_per_s, 0, 1_000_000)?;
    number("move_timeout_s", patch.move_timeout_s, 5, 3600)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_survives_the_store_and_unknown_ones_do_no_harm() {
        let settings = Settings {
            classroom_name: "二年級".into(),
            overcommit: 2.5,
            seats_per_host: 3,
            starts_at_once: 9,
            fork_timeout_s: 61,
            cold_timeout_s: 601,
            session_idle_minutes: 7,
            moves_per_host: 3,
            move_mbit_per_s: 900,
            move_timeout_s: 62,
        };
        let Value::Object(mut rows) = serde_json::to_value(&settings).unwrap() else {
            panic!("not an object")
        };
        rows.insert("of_a_newer_version".into(), json!([1]));
        assert_eq!(from_rows(rows).unwrap(), settings);
        assert_eq!(from_rows(Map::new()).unwrap(), Settings::default());
    }

    #[test]
    fn ranges_are_kept() {
        for bad in [
            json!({"overcommit": 0.5}),
            json!({"overcommit": 65.0}),
            json!({"starts_at_once": 0}),
            json!({"session_idle_minutes": 0}),
            json!({"classroom_name": " "}),
            json!({"classroom_name": "a\u{7}b"}),
        ] {
            let patch: SettingsPatch = serde_json::from_value(bad.clone()).unwrap();
            assert!(checked(patch).is_err(), "{bad} was taken");
        }
        let nan = SettingsPatch {
            overcommit: Some(f64::NAN),
            ..Default::default()
        };
        assert!(checked(nan).is_err());
    }
}
