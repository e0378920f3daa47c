use super::*;
use proptest::prelude::*;

type Q = Queue<u64, u8>;

#[derive(Debug, Clone)]
enum Step {
    Run(u64),
    Stop(u64),
    Save(u64, u8, bool),
    /// The actor takes an action, if there is one.
    Take,
    Usable,
    SaveOver,
    EndedByItself,
    /// The machine ends: as it was asked to, or by itself.
    Gone,
}

fn step() -> impl Strategy<Value = Step> {
    let generation = 1u64..7;
    prop_oneof![
        4 => generation.clone().prop_map(Step::Run),
        3 => generation.clone().prop_map(Step::Stop),
        2 => (generation, 0u8..3, any::<bool>()).prop_map(|(g, k, s)| Step::Save(g, k, s)),
        6 => Just(Step::Take),
        3 => Just(Step::Usable),
        2 => Just(Step::SaveOver),
        1 => Just(Step::EndedByItself),
        3 => Just(Step::Gone),
    ]
}

/// The policy once more, as plainly as it can be said: what people want last.
#[derive(Default)]
struct Model {
    newest: u64,
    /// Generation that is wanted to run, not started yet.
    wanted: Option<u64>,
    /// Generations that may never be started (again).
    spent: Vec<u64>,
    machine: Option<u64>,
}

fn go(queue: &mut Q, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match *step {
        Step::Run(g) => {
            let answer = queue.run(Generation(g), g);
            if g < model.newest {
                let newest = Generation(model.newest);
                prop_assert_eq!(answer, Err(Refusal::Stale { newest }));
            } else if model.wanted == Some(g) || model.spent.contains(&g) {
                prop_assert_eq!(answer, Ok(Admission::Known));
            } else {
                prop_assert_eq!(answer, Ok(Admission::Accepted));
                model.newest = g;
                model.wanted = Some(g);
            }
        }
        Step::Stop(g) => {
            let answer = queue.stop(Generation(g), 10);
            prop_assert_eq!(answer.is_err(), g < model.newest);
            if g >= model.newest {
                // Called off: as if it had been started and ended.
                model.spent.extend(model.wanted.filter(|w| *w == g));
                model.wanted = None;
                model.newest = g;
            }
        }
        Step::Save(g, key, suspend) => {
            if queue.save(Generation(g), Save { key, suspend }).is_ok() {
                prop_assert_eq!(model.machine, Some(g));
                prop_assert_eq!(model.wanted, None);
            }
        }
        Step::Take => match queue.take() {
            Some(Action::Start(g)) => {
                prop_assert_eq!(model.machine, None, "two machines at once");
                prop_assert_eq!(model.wanted.take(), Some(g));
                prop_assert!(!model.spent.contains(&g), "{} started twice", g);
                prop_assert_eq!(g, model.newest);
                model.spent.push(g);
                model.machine = Some(g);
            }
            Some(Action::End { .. } | Action::Save(_)) => prop_assert!(model.machine.is_some()),
            None => {}
        },
        Step::Usable => queue.usable(),
        Step::SaveOver => queue.save_over(),
        Step::EndedByItself => queue.ended_by_itself(),
        Step::Gone => {
            queue.gone();
            model.machine = None;
        }
    }
    prop_assert_eq!(queue.newest(), Generation(model.newest));
    prop_assert_eq!(queue.machine().map(|m| m.0.0), model.machine);
    prop_assert_eq!(queue.has_next(), model.wanted.is_some());
    Ok(())
}

/// A world in which everything works, until there is nothing left to do.
fn settle(queue: &mut Q) -> Result<(), TestCaseError> {
    for _ in 0..20 {
        match queue.take() {
            Some(Action::Start(_)) => queue.usable(),
            Some(Action::End { .. }) => queue.gone(),
            Some(Action::Save(s)) if s.suspend => queue.gone(),
            Some(Action::Save(_)) => queue.save_over(),
            None => match queue.machine() {
                Some((_, Doing::Starting)) => queue.usable(),
                Some((_, Doing::Saving)) => queue.save_over(),
                Some((_, Doing::Ending)) => queue.gone(),
                Some((_, Doing::Running)) | None => return Ok(()),
            },
        }
    }
    Err(TestCaseError::fail("it never comes to rest"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn follows_the_model(steps in prop::collection::vec(step(), 0..60)) {
        let mut queue = Q::new(Generation(0), false);
        let mut model = Model::default();
        for step in &steps {
            go(&mut queue, &mut model, step)?;
        }
    }

    #[test]
    fn the_last_word_counts(steps in prop::collection::vec(step(), 0..60), stop in any::<bool>()) {
        let mut queue = Q::new(Generation(0), false);
        let mut model = Model::default();
        for step in &steps {
            go(&mut queue, &mut model, step)?;
        }
        let last = Generation(model.newest + 1);
        if stop {
            queue.stop(last, 0).expect("not stale");
        } else {
            queue.run(last, last.0).expect("not stale");
        }
        settle(&mut queue)?;
        let expected = (!stop).then_some((last, Doing::Running));
        prop_assert_eq!(queue.machine(), expected);
    }

    #[test]
    fn saying_it_again_changes_nothing(steps in prop::collection::vec(step(), 0..40), again in step()) {
        let mut queue = Q::new(Generation(0), false);
        let mut model = Model::default();
        for step in &steps {
            go(&mut queue, &mut model, step)?;
        }
        if !matches!(again, Step::Run(_) | Step::Stop(_) | Step::Save(..)) {
            return Ok(());
        }
        go(&mut queue, &mut model, &again)?;
        let once = queue.clone();
        go(&mut queue, &mut model, &again)?;
        prop_assert_eq!(once, queue);
    }
}

#[test]
fn a_stop_that_names_a_new_generation_does_not_use_it_up() {
    let mut queue = Q::new(Generation(1), true);
    assert_eq!(queue.stop(Generation(2), 0), Ok(Admission::Known));
    assert!(matches!(
        queue.run(Generation(1), 1),
        Err(Refusal::Stale { .. })
    ));
    assert_eq!(queue.run(Generation(2), 2), Ok(Admission::Accepted));
    assert_eq!(queue.take(), Some(Action::Start(2)));
}

#[test]
fn an_adopted_machine_is_not_started_again() {
    let mut queue = Q::adopted(Generation(3), Generation(3), Doing::Running);
    assert_eq!(queue.run(Generation(3), 3), Ok(Admission::Known));
    assert_eq!(queue.take(), None);
    assert_eq!(queue.run(Generation(4), 4), Ok(Admission::Accepted));
    assert_eq!(queue.take(), Some(Action::End { patience_ms: 0 }));
    queue.gone();
    assert_eq!(queue.take(), Some(Action::Start(4)));
}

#[test]
fn a_save_is_not_interrupted_and_not_doubled() {
    let mut queue = Q::adopted(Generation(1), Generation(1), Doing::Running);
    let suspend = Save {
        key: 1,
        suspend: true,
    };
    assert_eq!(
        queue.save(Generation(1), suspend.clone()),
        Ok(Admission::Accepted)
    );
    assert_eq!(queue.take(), Some(Action::Save(suspend.clone())));
    assert_eq!(
        queue.save(Generation(1), suspend.clone()),
        Ok(Admission::Known)
    );
    let other = Save {
        key: 2,
        suspend: false,
    };
    assert_eq!(queue.save(Generation(1), other), Err(Refusal::Saving));
    assert_eq!(queue.run(Generation(2), 2), Ok(Admission::Accepted));
    assert_eq!(queue.take(), None);
    queue.gone();
    assert_eq!(queue.take(), Some(Action::Start(2)));
}
