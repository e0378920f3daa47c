//! The way in for the first admin: a one-time link in a file that only the one who runs the
//! classroom can read. There never is a default password.

use crate::api::users::{link, sign_in_path};
use crate::app::{App, StartError};
use crate::audit;
use crate::auth::secret;
use crate::config::FIRST_SIGN_IN;
use crate::error::ApiFailure;
use lyceum_model::UserId;
use lyceum_store::one_time::{self, Purpose};
use lyceum_store::users::{self, Role, User};

/// Sign-in name of the first admin.
pub const FIRST_ADMIN: &str = "admin";

/// Makes sure that there is a way in. While nobody who is an admin has a password, every
/// start makes a new link (the older ones stop working) and writes its path into the state
/// directory; afterwards the file is taken away.
pub async fn prepare(app: &App) -> Result<(), StartError> {
    let path = app.config.state_dir.join(FIRST_SIGN_IN);
    let file = |what| {
        let path = path.clone();
        move |source| StartError::File { what, path, source }
    };
    match way_in(app).await {
        Ok(Some(link)) => {
            lyceum_wire::write_atomically(&path, format!("{link}\n").as_bytes(), 0o600)
                .map_err(file("writing"))
        }
        Ok(None) => match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file("removing")(e)),
            _ => Ok(()),
        },
        Err(e) => Err(StartError::FirstAdmin(e.message)),
    }
}

async fn way_in(app: &App) -> Result<Option<String>, ApiFailure> {
    let everybody = users::list(&app.store).await?;
    let admins = || {
        everybody
            .iter()
            .filter(|u| u.role == Role::Admin && !u.disabled)
    };
    if admins().any(|u| u.password_hash.is_some() || u.source != "local") {
        return Ok(None);
    }
    let now = app.now();
    let mut tx = app.store.begin_write().await?;
    let id = match admins().next() {
        Some(admin) => admin.id.clone(),
        None => {
            let mut login = FIRST_ADMIN.to_owned();
            if everybody.iter().any(|u| u.login == login) {
                // Somebody has that name and may not be made an admin by a restart.
                login = format!("{FIRST_ADMIN}-{}", &secret::hash(&secret::new()?)[..6]);
            }
            let admin = User {
                id: UserId::new(),
                login: login.clone(),
                name: "Admin".into(),
                role: Role::Admin,
                source: "local".into(),
                password_hash: None,
                disabled: false,
                deleting: false,
                created: now,
            };
            users::insert(&mut tx, &admin).await?;
            audit::write_as(
                &mut tx,
                "system",
                "",
                "user.create",
                format!("user/{}", admin.id),
                login,
            )
            .await?;
            admin.id
        }
    };
    let link = link(now)?;
    one_time::insert(
        &mut tx,
        Purpose::SignIn,
        &secret::hash(&link.secret),
        id.as_str(),
        now,
        link.expires,
    )
    .await?;
    tx.commit().await?;
    Ok(Some(sign_in_path(&link.secret)))
}
