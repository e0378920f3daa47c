//! Checking passwords: argon2id for accounts of the classroom itself, and the seam where a
//! directory (LDAP, OIDC) plugs in.

use crate::error::ApiFailure;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use lyceum_store::users::User;
use std::sync::OnceLock;
use tokio::sync::Semaphore;

/// Fewest characters of a password.
const SHORTEST: usize = 8;
/// Most bytes of a password.
const LONGEST: usize = 1024;
/// Passwords that are hashed at once; each takes 19 MiB and some 20 ms of a core.
const AT_ONCE: usize = 2;
/// Sign-ins that may wait for that: a whole class, and then some.
const WAITING: usize = 256;

/// What a directory says to a sign-in name with a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is this person.
    Right,
    /// It is not, or nobody has that name.
    Wrong,
}

/// Checks passwords of the people whose `source` it is.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The `source` of its people in the store.
    fn source(&self) -> &'static str;

    /// Whether the password is right. `user` is `None` when no account has the name; that
    /// must take as long as a wrong password, so that names can't be found out by the clock.
    async fn check(
        &self,
        user: Option<&User>,
        login: &str,
        password: &str,
    ) -> Result<Verdict, ApiFailure>;
}

/// Accounts whose password hash is in the store.
pub struct LocalPasswords {
    slots: std::sync::Arc<Semaphore>,
    queue: Semaphore,
}

/// What is checked when there is no account, to take the same time: the hash of a password
/// that nobody knows.
fn nobody() -> Result<&'static str, ApiFailure> {
    static NOBODY: OnceLock<String> = OnceLock::new();
    if let Some(hash) = NOBODY.get() {
        return Ok(hash);
    }
    let hash = hash(&super::secret::new()?).map_err(ApiFailure::internal)?;
    Ok(NOBODY.get_or_init(|| hash))
}

fn argon2() -> Result<Argon2<'static>, String> {
    // OWASP's first choice for argon2id: 19 MiB, 2 passes, 1 lane.
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|e| e.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, String> {
    argon2()?
        .hash_password(password.as_bytes())
        .map(|h| h.to_string())
        .map_err(|e| e.to_string())
}

fn verify(password: &str, hash: &str) -> Result<bool, String> {
    let parsed =
        PasswordHash::new(hash).map_err(|e| format!("a stored hash can't be read: {e}"))?;
    Ok(argon2()?
        .verify_password(password.as_bytes(), &parsed)
        .is_ok())
}

impl LocalPasswords {
    /// Ready to check.
    pub fn new() -> Result<LocalPasswords, ApiFailure> {
        // Made now, so that the first wrong name does not take longer.
        nobody()?;
        Ok(LocalPasswords {
            slots: std::sync::Arc::new(Semaphore::new(AT_ONCE)),
            queue: Semaphore::new(WAITING),
        })
    }

    /// The PHC string of a password.
    pub async fn hash(&self, password: &str) -> Result<String, ApiFailure> {
        let password = password.to_owned();
        self.work(move || hash(&password)).await
    }

    /// Runs one hash on a blocking thread, a few at once: hashing must not take the cores
    /// and the memory from the desktops.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, ApiFailure> {
        let _place = self.queue.try_acquire().map_err(|_| {
            ApiFailure::unavailable(
                "too many people sign in at this moment: try again in a few seconds",
            )
        })?;
        let slot = self
            .slots
            .clone()
            .acquire_owned()
            .await
            .map_err(ApiFailure::internal)?;
        tokio::task::spawn_blocking(move || {
            // Kept by the work itself: it goes on when the one who asked has hung up.
            let _slot = slot;
            work()
        })
        .await
        .map_err(ApiFailure::internal)?
        .map_err(ApiFailure::internal)
    }
}

#[async_trait]
impl Authenticator for LocalPasswords {
    fn source(&self) -> &'static str {
        "local"
    }

    async fn check(
        &self,
        user: Option<&User>,
        _login: &str,
        password: &str,
    ) -> Result<Verdict, ApiFailure> {
        // No password set, or one that nobody can have: the same work, and wrong in the end.
        let (hash, may_be_right) = match user.and_then(|u| u.password_hash.clone()) {
            Some(hash) if password.len() <= LONGEST => (hash, true),
            _ => (nobody()?.to_owned(), false),
        };
        let password: String = if password.len() <= LONGEST {
            password.to_owned()
        } else {
            String::new()
        };
        let right = self.work(move || verify(&password, &hash)).await?;
        Ok(if right && may_be_right {
            Verdict::Right
        } else {
            Verdict::Wrong
        })
    }
}

/// Whether this may become somebody's password.
pub fn check_new_password(password: &str, login: &str) -> Result<(), ApiFailure> {
    if password.chars().count() < SHORTEST {
        return Err(ApiFailure::invalid(format!(
            "the password is shorter than {SHORTEST} characters: choose a longer one"
        )));
    }
    if password.len() > LONGEST {
        return Err(ApiFailure::invalid(format!(
            "the password is longer than {LONGEST} bytes: choose a shorter one"
        )));
    }
    if password.to_lowercase() == login {
        return Err(ApiFailure::invalid(
            "the password is the sign-in name: choose another",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(hash: Option<String>) -> User {
        User {
            id: "u".parse().unwrap(),
            login: "ana".into(),
            name: "Ana".into(),
            role: lyceum_store::users::Role::Student,
            source: "local".into(),
            password_hash: hash,
            disabled: false,
            deleting: false,
            created: 0,
        }
    }

    #[tokio::test]
    async fn only_the_right_password_of_somebody_who_has_one_is_right() {
        let passwords = LocalPasswords::new().unwrap();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let with = user(Some(hash));
        let check = async |user: Option<&User>, password: &str| {
            passwords.check(user, "ana", password).await.unwrap()
        };
        assert_eq!(check(Some(&with), "correct horse").await, Verdict::Right);
        assert_eq!(check(Some(&with), "correct hors").await, Verdict::Wrong);
        assert_eq!(check(Some(&with), "").await, Verdict::Wrong);
        assert_eq!(
            check(Some(&with), &"x".repeat(100_000)).await,
            Verdict::Wrong
        );
        assert_eq!(check(Some(&user(None)), "").await, Verdict::Wrong);
        assert_eq!(check(None, "correct horse").await, Verdict::Wrong);
    }

    #[test]
    fn new_passwords_have_a_shortest_and_a_longest() {
        assert!(check_new_password("1234567", "ana").is_err());
        assert!(check_new_password("12345678", "ana").is_ok());
        assert!(check_new_password("密碼密碼密碼密碼", "ana").is_ok());
        assert!(check_new_password("Somebody", "somebody").is_err());
        assert!(check_new_password(&"x".repeat(1025), "ana").is_err());
    }
}
