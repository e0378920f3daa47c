//! Who uses a release, in words: pure.

use lyceum_store::releases::User;

/// How many people are named of a course's desktops.
const NAMED: usize = 3;

/// One line per course, course's desktops and draft.
pub fn words<'a>(users: impl IntoIterator<Item = &'a User>) -> Vec<String> {
    let mut out = Vec::new();
    // By course, in the order they come; without a course one by one.
    let mut desktops: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut points: Vec<(&str, Vec<&str>)> = Vec::new();
    for user in users {
        match user {
            User::Pins { name, .. } => out.push(format!("course {name:?}, which pins it")),
            User::Follows { name, .. } => {
                out.push(format!("course {name:?}, which follows the newest release"));
            }
            User::Draft { image, .. } => {
                out.push(format!(
                    "the draft of image {image:?}, which is being copied from it"
                ));
            }
            User::Desktop {
                of: Some((login, course)),
                ..
            } => add(&mut desktops, course, login),
            User::Desktop { desktop, of: None } => out.push(format!("desktop {desktop}")),
            User::Points {
                of: Some((login, course)),
                ..
            } => add(&mut points, course, login),
            User::Points { desktop, of: None } => {
                out.push(format!("restore points of desktop {desktop}"));
            }
        }
    }
    for (course, logins) in desktops {
        let named = first(&logins);
        out.push(match logins.len() {
            1 => format!("the desktop of {named} in {course:?}"),
            n if n <= NAMED => format!("the desktops of {named} in {course:?}"),
            n => format!(
                "{n} desktops in {course:?}: of {named} and {} others",
                n - NAMED
            ),
        });
    }
    for (course, logins) in points {
        let named = first(&logins);
        out.push(match logins.len() {
            n if n <= NAMED => format!("restore points of {named} in {course:?}"),
            n => format!(
                "restore points of {n} desktops in {course:?}: of {named} and {} others",
                n - NAMED
            ),
        });
    }
    out
}

fn add<'a>(to: &mut Vec<(&'a str, Vec<&'a str>)>, course: &'a str, login: &'a str) {
    match to.iter_mut().find(|(c, _)| *c == course) {
        Some((_, logins)) => logins.push(login),
        None => to.push((course, vec![login])),
    }
}

/// The first few.
fn first(logins: &[&str]) -> String {
    logins
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_model::{CourseId, DesktopId, DraftId};

    #[test]
    fn names_everybody_and_stays_short() {
        let of = |login: &str| User::Desktop {
            desktop: DesktopId::new(),
            of: Some((login.into(), "Python".into())),
        };
        let mut users = vec![
            User::Follows {
                course: CourseId::new(),
                name: "Python".into(),
            },
            User::Draft {
                draft: DraftId::new(),
                image: "Debian".into(),
            },
            of("anna"),
        ];
        assert_eq!(
            words(&users),
            [
                "course \"Python\", which follows the newest release",
                "the draft of image \"Debian\", which is being copied from it",
                "the desktop of anna in \"Python\"",
            ]
        );
        users.extend(["ben", "carl", "dora", "emil"].map(of));
        assert_eq!(
            words(&users)[2],
            "5 desktops in \"Python\": of anna, ben, carl and 2 others"
        );
        users.push(User::Points {
            desktop: DesktopId::new(),
            of: Some(("anna".into(), "Python".into())),
        });
        assert_eq!(
            words(&users).last().map(String::as_str),
            Some("restore points of anna in \"Python\"")
        );
        assert!(words(&[]).is_empty());
    }
}
