//! What a move costs is known before it is made, and the cheapest moves are taken.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
use common::*;
use lyceum_placement::*;

fn plan_of(snapshot: &Snapshot, policy: &PlanPolicy) -> Plan {
    let plan = plan(snapshot, policy, NOW).unwrap();
    verify(snapshot, policy, &plan).unwrap();
    plan
}

fn moved(plan: &Plan) -> Vec<&str> {
    let mut all: Vec<&str> = plan.moves.iter().map(|m| m.desktop.as_str()).collect();
    all.sort_unstable();
    all
}

/// Desktops that share memory, of which so much travels each.
fn share(snapshot: &mut Snapshot, travels: &[f64]) {
    for (d, mib) in snapshot.desktops.iter_mut().zip(travels) {
        d.private_mib = Some(60);
        d.move_mib = Some(*mib);
    }
}

#[test]
fn a_plan_says_what_travels_what_is_taken_there_and_how_long_it_takes() {
    let mut snapshot = classroom(&[4, 0]);
    snapshot.move_mbit_per_s = Some(1000.0);
    share(&mut snapshot, &[10.0, 11.0, 12.0, 13.0]);
    let policy = PlanPolicy::of(Mode::MemoryBalance);
    let plan = plan_of(&snapshot, &policy);
    assert_eq!(moved(&plan), ["d1", "d2"]);
    let price = plan.moves[0].price.unwrap();
    assert_eq!(
        (price.way, price.memory_mib, price.more_mib),
        (MovesBy::Delta, 60, 0)
    );
    assert_eq!(
        plan.price,
        Some(PlanPrice {
            travels_mib: 21.0,
            more_mib: 0,
            seconds: Some(0.17)
        })
    );
    // By migration it shares nothing afterwards: all of its memory travels and is its own.
    for d in &mut snapshot.desktops {
        d.moves_by = Some(MovesBy::Migration);
        d.move_mib = None;
    }
    snapshot.move_mbit_per_s = None;
    // It is never balanced by giving up what is shared: desktops of 60 MiB would become 2 GiB each.
    let stays = plan_of(&snapshot, &policy);
    assert!(stays.moves.is_empty() && stays.price.is_none());
    let seats = PlanPolicy {
        balance_by: BalanceBy::Seats,
        ..policy
    };
    let plan = plan_of(&snapshot, &seats);
    let price = plan.moves[0].price.unwrap();
    assert_eq!(
        (price.travels_mib, price.memory_mib, price.more_mib),
        (2048.0, 2048, 1988)
    );
    assert_eq!(price.seconds, None);
    let after = snapshot.after(&plan, NOW);
    for m in &plan.moves {
        let d = after.desktops.iter().find(|d| d.id == m.desktop).unwrap();
        assert_eq!((d.cost_mib(), d.travels_mib()), (2048, 2048.0));
    }
    let sum: u64 = plan.moves.iter().map(|m| m.price.unwrap().more_mib).sum();
    assert_eq!(plan.price.unwrap().more_mib, sum);
}

#[test]
fn of_as_many_moves_the_cheapest_are_taken() {
    // Even by seats: any two of the four do, and the two cheapest go.
    let mut snapshot = classroom(&[4, 0]);
    share(&mut snapshot, &[90.0, 8.0, 70.0, 9.0]);
    let plan = plan_of(&snapshot, &PlanPolicy::of(Mode::MemoryBalance));
    assert_eq!(moved(&plan), ["d2", "d4"]);

    // Power saving: two hosts have four desktops each; the one whose desktops changed less is emptied, even
    // where the other draws more.
    let mut snapshot = classroom(&[11, 4, 4]);
    share(&mut snapshot, &[10.0; 15]);
    for d in &mut snapshot.desktops[11..15] {
        d.move_mib = Some(50.0);
    }
    snapshot.hosts[1].watts = Some(200.0);
    for d in &mut snapshot.desktops[15..] {
        d.private_mib = Some(60);
        d.move_mib = Some(9.0);
    }
    let policy = PlanPolicy::of(Mode::PowerSaving);
    let plan = plan_of(&snapshot, &policy);
    assert_eq!(plan.power_off, ["kvm3"]);
    assert_eq!(plan.price.unwrap().travels_mib, 36.0);
    // Fewest moves come first all the same.
    snapshot.desktops.pop();
    snapshot.desktops[15].move_mib = Some(900.0);
    assert_eq!(plan_of(&snapshot, &policy).power_off, ["kvm3"]);
    // Where they cost the same, the host that draws more goes.
    let mut same = classroom(&[11, 4, 4]);
    same.hosts[2].watts = Some(200.0);
    assert_eq!(plan_of(&same, &policy).power_off, ["kvm3"]);

    // Compute balance: of light desktops that give the same relief the cheaper one goes.
    let mut busy = classroom(&[3, 0]);
    share(&mut busy, &[5.0, 500.0, 5.0]);
    for (h, cpu) in busy.hosts.iter_mut().zip([88.0, 5.0]) {
        h.cpu_cores = Some(2.0);
        h.cpu_percent = Some(cpu);
    }
    for (d, cpu) in busy.desktops.iter_mut().zip([95.0, 40.0, 40.0]) {
        d.cpu_percent = Some(cpu);
    }
    let plan = plan_of(&busy, &PlanPolicy::of(Mode::ComputeBalance));
    assert_eq!(moved(&plan), ["d3"]);
}

#[test]
fn by_way_of_a_third_host_what_was_shared_is_lost_once() {
    let mut snapshot = classroom(&[2, 2, 0]);
    for (h, memory) in snapshot.hosts.iter_mut().zip([12_288, 12_288, 8192]) {
        h.seats = None;
        h.memory_mib = memory;
    }
    for (d, memory) in snapshot.desktops.iter_mut().zip([6144, 6144, 2048, 2048]) {
        d.memory_mib = memory;
        d.moves_by = Some(MovesBy::Migration);
    }
    let plan = plan_of(&snapshot, &PlanPolicy::of(Mode::MemoryBalance));
    assert!(!plan.moves.is_empty());
    assert_eq!(
        plan.price.unwrap().more_mib,
        0,
        "they shared nothing before"
    );
}
