use super::*;
use proptest::prelude::*;

fn logins(text: &str) -> Vec<String> {
    let (lines, problems) = read(text);
    assert!(problems.is_empty(), "{problems:?}");
    lines.into_iter().map(|l| l.login).collect()
}

fn problem(text: &str) -> RosterProblem {
    let (_, mut problems) = read(text);
    assert_eq!(problems.len(), 1, "{text:?}: {problems:?}");
    problems.remove(0)
}

fn row(login: &str, role: CourseRole) -> RosterRow {
    RosterRow {
        login: login.into(),
        name: login.to_uppercase(),
        role,
    }
}

#[test]
fn delimiters_quotes_bom_line_ends_and_other_columns() {
    for text in [
        "login,name\nana,Ana\nben,Ben\n",
        "login;name\nana;\"Ana; the first\"\nben;Ben",
        "login\tname\r\nana\tAna\r\nben\tBen\r\n",
        "\u{feff}Login,Name\nANA,Ana\nben,Ben\n",
        "class;Name;LOGIN\n7b;Ana;ana\n7b;Ben;ben\n",
        "login\nana\n\n\n  ben  \n",
    ] {
        assert_eq!(logins(text), ["ana", "ben"], "{text:?}");
    }
}

#[test]
fn problems_name_their_line_and_what_to_do() {
    assert_eq!(problem("").line, 1);
    assert!(problem("name,role\nx,student\n").message.contains("login"));
    assert!(problem("login,login\na,b\n").message.contains("twice"));
    let twice = problem("login\nana\nben\nANA\n");
    assert_eq!((twice.line, twice.message.contains("line 2")), (4, true));
    assert_eq!(problem("login,role\nana,boss\n").line, 2);
    assert_eq!(problem("login,name\nana\na b,x\n").line, 3);
    assert_eq!(problem("login,name\n,Nobody\n").line, 2);
    assert!(
        problem(&"login\n".repeat(300_000))
            .message
            .contains("1 MiB")
    );
    let many: String = (0..MAX_ROWS + 10).map(|i| format!("s{i}\n")).collect();
    assert!(problem(&format!("login\n{many}")).message.contains("split"));
}

#[test]
fn hostile_names_are_problems() {
    for bad in [
        "../../etc/passwd",
        "a/b",
        "<script>",
        "a\u{0}b",
        "a\u{7}b",
        "=cmd()",
        &"x".repeat(65),
    ] {
        let (lines, problems) = read(&format!("login\n{bad}\n"));
        assert!(
            lines.is_empty() && problems.len() == 1,
            "{bad:?}: {lines:?}"
        );
    }
    let (_, problems) = read("login,name\nana,\"A\u{1b}[2J\"\n");
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_plan_adds_changes_removes_and_leaves() {
    let accounts: HashMap<String, String> = ["ana", "ben", "cy", "teach"]
        .iter()
        .map(|l| (l.to_string(), l.to_uppercase()))
        .collect();
    let roster = [
        row("ana", CourseRole::Student),
        row("cy", CourseRole::Student),
        row("teach", CourseRole::Teacher),
    ];
    let text = "login,name,role\nana,,teacher\nben,ignored,\nnew,Newcomer,student\n";
    let change = plan(text, &accounts, &roster, true, true);
    assert_eq!(change.change, [row("ana", CourseRole::Teacher)]);
    assert_eq!(
        change.remove,
        [row("cy", CourseRole::Student)],
        "teachers stay"
    );
    assert_eq!(change.create.len(), 1);
    assert_eq!(change.create[0].name, "Newcomer");
    assert_eq!(
        change
            .add
            .iter()
            .map(|r| r.login.as_str())
            .collect::<Vec<_>>(),
        ["ben", "new"]
    );
    assert_eq!(
        change.add[0].name, "BEN",
        "an account's name is not the roster's to change"
    );
    assert!(change.problems.is_empty());

    let without = plan(text, &accounts, &roster, false, false);
    assert!(without.remove.is_empty());
    assert_eq!(without.problems.len(), 1);
    assert_eq!(without.problems[0].line, 4);
    let same = plan("login\nana\ncy\nteach\n", &accounts, &roster, true, true);
    assert_eq!(
        same,
        RosterChange {
            unchanged: 3,
            ..RosterChange::default()
        }
    );
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "(login[,;\t]name\n)?(.|[\n\",;\t\u{feff}]){0,400}") {
        let (lines, problems) = read(&text);
        prop_assert!(problems.len() <= MAX_PROBLEMS);
        for line in &lines {
            prop_assert_eq!(&name::login(&line.login).unwrap(), &line.login);
        }
        let unique: HashSet<_> = lines.iter().map(|l| &l.login).collect();
        prop_assert_eq!(unique.len(), lines.len());
    }

    /// After a plan was carried out, the same file changes nothing more.
    #[test]
    fn a_plan_is_reached_in_one_step(
        file in proptest::collection::btree_map("[a-e]", proptest::option::of(any::<bool>()), 0..5),
        roster in proptest::collection::btree_map("[a-g]", any::<bool>(), 0..7),
        remove in any::<bool>(),
    ) {
        let role = |teacher: bool| if teacher { CourseRole::Teacher } else { CourseRole::Student };
        let mut text = "login,role\n".to_owned();
        for (login, teacher) in &file {
            let word = match teacher { None => "", Some(true) => "teacher", Some(false) => "student" };
            text += &format!("{login},{word}\n");
        }
        let mut accounts: HashMap<String, String> =
            roster.keys().map(|l| (l.clone(), l.to_uppercase())).collect();
        let mut now: Vec<RosterRow> = roster.iter().map(|(l, t)| row(l, role(*t))).collect();
        let change = plan(&text, &accounts, &now, remove, true);
        for made in &change.create {
            accounts.insert(made.login.clone(), made.name.clone());
        }
        now.retain(|r| !change.remove.contains(r));
        for changed in &change.change {
            now.iter_mut().filter(|r| r.login == changed.login).for_each(|r| r.role = changed.role);
        }
        now.extend(change.add);
        let again = plan(&text, &accounts, &now, remove, true);
        let rest = RosterChange { unchanged: again.unchanged, ..RosterChange::default() };
        prop_assert_eq!(again, rest);
    }
}
