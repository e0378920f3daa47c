//! People name things as they see them: a title, a sign-in name, `Course/login`, `Image@2`, or
//! the end of an id out of a table. Here that becomes the API's ids.

use crate::client::Client;
use crate::exit::{self, Exit};
use crate::format::short;
use lyceum_api::accounts::User;
use lyceum_api::courses::Course;
use lyceum_api::desktops::{Desktop, DesktopCreate};
use lyceum_api::images::{Image, Release};
use lyceum_api::operations::Operation;
use lyceum_model::{CourseId, UserId};

/// Fewest characters of an id's end that are taken for it.
const MIN_SUFFIX: usize = 4;

/// The one of `items` that `text` means: its id, its name, or the end of its id.
pub fn pick<T>(
    kind: &str,
    text: &str,
    items: Vec<T>,
    id: impl Fn(&T) -> &str,
    name: impl Fn(&T) -> &str,
) -> anyhow::Result<T> {
    let rank = |item: &T| -> Option<u8> {
        if id(item) == text {
            Some(0)
        } else if name(item) == text {
            Some(1)
        } else if text.len() >= MIN_SUFFIX && id(item).ends_with(text) {
            Some(2)
        } else {
            None
        }
    };
    let names: Vec<String> = items
        .iter()
        .take(8)
        .map(|item| name(item).to_owned())
        .collect();
    let more = items.len() > names.len();
    let Some(best) = items.iter().filter_map(&rank).min() else {
        let known = match names.is_empty() {
            true => format!("there is no {kind} at all"),
            false => format!(
                "there is: {}{}",
                names.join(", "),
                if more { ", ..." } else { "" }
            ),
        };
        return Err(Exit::coded(
            exit::REFUSED,
            format!("no {kind} is called {text:?}; {known}"),
        ));
    };
    let mut found: Vec<T> = items
        .into_iter()
        .filter(|item| rank(item) == Some(best))
        .collect();
    if found.len() > 1 {
        let ids: Vec<&str> = found.iter().map(&id).collect();
        return Err(Exit::coded(
            exit::REFUSED,
            format!(
                "{text:?} can be {} {kind}s; name one by its id: {}",
                found.len(),
                ids.join(", ")
            ),
        ));
    }
    found
        .pop()
        .ok_or_else(|| Exit::coded(exit::REFUSED, format!("no {kind} is called {text:?}")))
}

/// A course by its title.
pub async fn course(client: &Client, text: &str) -> anyhow::Result<Course> {
    let all: Vec<Course> = client.get("courses").await?;
    pick("course", text, all, |c| c.id.as_str(), |c| &c.name)
}

/// A person by sign-in name.
pub async fn user(client: &Client, text: &str) -> anyhow::Result<User> {
    let all: Vec<User> = client.get("users").await?;
    pick("person", text, all, |u| u.id.as_str(), |u| &u.login)
}

/// People by sign-in name; `None` when none are named.
pub async fn users(client: &Client, texts: &[String]) -> anyhow::Result<Option<Vec<UserId>>> {
    if texts.is_empty() {
        return Ok(None);
    }
    let all: Vec<User> = client.get("users").await?;
    texts
        .iter()
        .map(|text| {
            pick("person", text, all.clone(), |u| u.id.as_str(), |u| &u.login).map(|user| user.id)
        })
        .collect::<anyhow::Result<Vec<_>>>()
        .map(Some)
}

/// An image by its name.
pub async fn image(client: &Client, text: &str) -> anyhow::Result<Image> {
    let all: Vec<Image> = client.get("images").await?;
    pick("image", text, all, |i| i.id.as_str(), |i| &i.name)
}

/// A release as `Image@VERSION`, or by its id or an end of it.
pub async fn release(client: &Client, text: &str) -> anyhow::Result<Release> {
    if let Some((name, version)) = text.rsplit_once('@') {
        let image = image(client, name).await?;
        let versions: Vec<String> = image
            .releases
            .iter()
            .map(|r| r.version.to_string())
            .collect();
        return image
            .releases
            .into_iter()
            .find(|r| r.version.to_string() == version)
            .ok_or_else(|| {
                Exit::coded(
                    exit::REFUSED,
                    format!(
                        "{name} has no release {version}; it has: {}",
                        versions.join(", ")
                    ),
                )
            });
    }
    let images: Vec<Image> = client.get("images").await?;
    let releases: Vec<Release> = images
        .into_iter()
        .flat_map(|image| image.releases)
        .collect();
    pick(
        "release",
        text,
        releases,
        |r| r.id.as_str(),
        |r| short_release(r),
    )
}

/// A release's hash as it is shown: its first twelve characters.
pub fn short_release(release: &Release) -> &str {
    release.id.as_str().get(..12).unwrap_or(release.id.as_str())
}

/// A desktop as `Course/login`, or by its id or an end of it.
pub async fn desktop(client: &Client, text: &str) -> anyhow::Result<Desktop> {
    match find_desktop(client, text).await? {
        Found::There(desktop) => Ok(*desktop),
        Found::Not { .. } => Err(Exit::coded(
            exit::REFUSED,
            format!(
                "{text} has no desktop yet; start it (lyceum desktop start {text:?}), \
                 which makes one for somebody on the roster"
            ),
        )),
    }
}

/// The same for what is to be started: somebody on the roster who has none yet gets one.
pub async fn desktop_to_start(client: &Client, text: &str) -> anyhow::Result<Desktop> {
    match find_desktop(client, text).await? {
        Found::There(desktop) => Ok(*desktop),
        Found::Not { course, user } => Ok(client
            .post("desktops", &DesktopCreate { course, user })
            .await?),
    }
}

enum Found {
    There(Box<Desktop>),
    Not { course: CourseId, user: UserId },
}

async fn find_desktop(client: &Client, text: &str) -> anyhow::Result<Found> {
    let all: Vec<Desktop> = client.get("desktops?all=true").await?;
    if let Some((course_name, login)) = text.rsplit_once('/') {
        let course = course(client, course_name).await?.id;
        let user = user(client, login).await?.id;
        let own = all
            .into_iter()
            .find(|d| d.course == course && d.user == user);
        return Ok(match own {
            Some(desktop) => Found::There(Box::new(desktop)),
            None => Found::Not { course, user },
        });
    }
    pick(
        "desktop",
        text,
        all,
        |d| d.id.as_str(),
        |d| short_desktop(d),
    )
    .map(|desktop| Found::There(Box::new(desktop)))
}

fn short_desktop(desktop: &Desktop) -> &str {
    let id = desktop.id.as_str();
    id.char_indices()
        .nth_back(11)
        .map_or(id, |(at, _)| &id[at..])
}

/// An operation by its id or an end of it.
pub async fn operation(client: &Client, text: &str) -> anyhow::Result<Operation> {
    let all: Vec<Operation> = crate::commands::operation::recent(client).await?;
    let shorts: Vec<String> = all.iter().map(|o| short(&o.id)).collect();
    let pairs: Vec<(Operation, String)> = all.into_iter().zip(shorts).collect();
    pick("operation", text, pairs, |p| p.0.id.as_str(), |p| &p.1).map(|pair| pair.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, items: &[(&'static str, &'static str)]) -> Result<&'static str, String> {
        pick("thing", text, items.to_vec(), |i| i.0, |i| i.1)
            .map(|i| i.0)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn an_id_wins_over_a_name_and_a_name_over_the_end_of_an_id() {
        let items = [
            ("aaaa1111", "bbbb2222"),
            ("bbbb2222", "x"),
            ("cccc1111", "1111"),
        ];
        assert_eq!(find("bbbb2222", &items), Ok("bbbb2222"));
        assert_eq!(find("1111", &items), Ok("cccc1111"));
        assert_eq!(find("a1111", &items), Ok("aaaa1111"));
    }

    #[test]
    fn what_is_ambiguous_or_unknown_is_said() {
        let items = [("aaaa1111", "Math"), ("bbbb1111", "Math")];
        assert!(
            find("Math", &items)
                .unwrap_err()
                .contains("aaaa1111, bbbb1111")
        );
        assert!(find("1111", &items).unwrap_err().contains("can be 2"));
        assert!(find("111", &items).unwrap_err().contains("there is: Math"));
        assert!(find("Math", &[]).unwrap_err().contains("no thing at all"));
    }
}
