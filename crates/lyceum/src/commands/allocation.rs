//! `lyceum allocation`: how the classroom allocates its hosts. Plans of it are `lyceum plan` without a file.

use crate::context::Context;
use crate::exit::Exit;
use crate::format::{dash, moment, word};
use crate::table::{Table, plain};
use clap::Subcommand;
use lyceum_api::Page;
use lyceum_api::allocation::{
    Allocation, AllocationNow, MoveCost, PlanOrder, PlanRecord, PlanState, StepAction,
};
use lyceum_model::PlanId;
use lyceum_placement::{Mode, Price};
use serde_json::Value;
use std::time::Duration;

/// Allocation.
#[derive(Debug, Subcommand)]
pub enum AllocationCommand {
    /// The mode in force and every number
    Show,
    /// Change some, as NAME=VALUE: automatic=true mode=power-saving min_hosts=2
    Set {
        /// What to change
        #[arg(required = true, value_name = "NAME=VALUE")]
        changes: Vec<String>,
    },
    /// The newest plans
    Plans,
    /// Call off the plan that is being carried out
    Stop,
}

/// Runs the command.
pub async fn run(ctx: &Context, command: AllocationCommand) -> anyhow::Result<()> {
    match command {
        AllocationCommand::Show => {
            let now: AllocationNow = ctx.client.get("allocation").await?;
            ctx.show(&now, details)
        }
        AllocationCommand::Set { changes } => {
            let now: AllocationNow = ctx.client.get("allocation").await?;
            let body = changed(now.settings, &changes).map_err(Exit::usage)?;
            let now: AllocationNow = ctx.client.put("allocation", &body).await?;
            ctx.show(&now, details)
        }
        AllocationCommand::Plans => {
            let plans: Page<PlanRecord> = ctx.client.get("plans").await?;
            ctx.show_table(
                &plans.items,
                "no plan was made yet; make one: lyceum plan",
                |plans| {
                    let mut table =
                        Table::new(&["AT", "FOR", "STATE", ">STEPS", "ORDERED BY", "NOTE"]);
                    for p in plans {
                        table.row([
                            moment(p.at),
                            p.mode.to_string(),
                            word(&p.state),
                            p.steps.len().to_string(),
                            dash(p.ordered_by.as_ref()),
                            p.message.clone(),
                        ]);
                    }
                    table
                },
            )
        }
        AllocationCommand::Stop => {
            let now: AllocationNow = ctx.client.get("allocation").await?;
            let Some(id) = now.running else {
                return Err(Exit::usage("no plan is being carried out"));
            };
            let plan: PlanRecord = ctx
                .client
                .post(&format!("plans/{id}/stop"), &serde_json::json!({}))
                .await?;
            ctx.done(
                &plan,
                "the plan is called off; the step that was begun comes to its end",
            )
        }
    }
}

/// Settings with these changes; names are those of the settings and of their policy.
fn changed(settings: Allocation, changes: &[String]) -> Result<Allocation, String> {
    let mut all = serde_json::to_value(&settings).map_err(|e| e.to_string())?;
    for change in changes {
        let (name, value) = change
            .split_once('=')
            .ok_or_else(|| format!("{change:?} is not of the form NAME=VALUE"))?;
        let name = name.trim().replace('-', "_");
        // A number, a word, true or false, or null.
        let value: Value =
            serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let known = |v: &Value| v.get(&name).is_some() && name != "policy";
        let place = if known(&all) {
            &mut all
        } else {
            match all.get_mut("policy") {
                Some(policy) if known(policy) => policy,
                _ => {
                    return Err(format!(
                        "there is no setting {name:?}; see: lyceum allocation show"
                    ));
                }
            }
        };
        place[&name] = value;
    }
    serde_json::from_value(all).map_err(|e| format!("that can't be: {e}"))
}

fn details(now: &AllocationNow) -> String {
    let mut lines = vec![
        ("mode in force".to_owned(), now.mode.to_string()),
        ("because".to_owned(), now.mode_reason.clone()),
        ("seats needed soon".to_owned(), now.seats_needed.to_string()),
        (
            "last carried out".to_owned(),
            now.last_acted_at.map_or_else(|| "never".into(), moment),
        ),
    ];
    if let Some(look) = &now.last_look {
        let why = look.why.first();
        let why = why.map(|n| format!(": {}: {}", n.what, n.why));
        lines.push((
            "last look".to_owned(),
            format!(
                "{}, {}{}",
                moment(look.at),
                word(&look.state),
                why.unwrap_or_default()
            ),
        ));
    }
    lines.push(("next".to_owned(), next(now)));
    let mut flat = |value: Value| {
        for (name, value) in value.as_object().into_iter().flatten() {
            if name != "policy" && name != "ordered" {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                lines.push((name.clone(), text));
            }
        }
    };
    flat(serde_json::to_value(&now.settings).unwrap_or_default());
    flat(serde_json::to_value(&now.settings.policy).unwrap_or_default());
    lines
        .iter()
        .map(|(k, v)| format!("{k:<20} {}\n", plain(v)))
        .collect()
}

/// What happens next, in words.
fn next(now: &AllocationNow) -> String {
    if !now.settings.automatic {
        return format!(
            "nothing by itself: {} is planned only when somebody orders it (lyceum plan --act); have it done by itself: lyceum allocation set automatic=true",
            now.mode
        );
    }
    if now.running.is_some() {
        return "a plan is being carried out".into();
    }
    let mut text = match now.next_look {
        Some(at) => format!("it is looked at {}", moment(at)),
        None => "it is looked at once".into(),
    };
    if let (Some(at), Some(last)) = (now.not_before, now.last_acted_at) {
        text.push_str(&format!(
            ", and nothing is done before {}: {} min pass after the plan of {}",
            moment(at),
            now.settings.policy.pause_minutes,
            moment(last)
        ));
    }
    text
}

/// Has the classroom's controller make a plan, and carry it out when `act`.
pub async fn plan(ctx: &Context, mode: Option<Mode>, act: bool) -> anyhow::Result<()> {
    let mut plan: PlanRecord = ctx.client.post("plans", &PlanOrder { mode, act }).await?;
    while plan.state == PlanState::Running && !ctx.no_wait {
        tokio::time::sleep(Duration::from_millis(500)).await;
        plan = of(ctx, &plan.id).await?;
    }
    ctx.show(&plan, report)?;
    match plan.state {
        PlanState::Failed | PlanState::Stopped => Err(Exit::coded(
            crate::exit::FAILED,
            format!("the plan was not carried out whole: {}", plan.message),
        )),
        _ => Ok(()),
    }
}

async fn of(ctx: &Context, id: &PlanId) -> anyhow::Result<PlanRecord> {
    let details: lyceum_api::allocation::PlanDetails =
        ctx.client.get(&format!("plans/{id}")).await?;
    Ok(details.plan)
}

fn report(plan: &PlanRecord) -> String {
    let mut out = format!("{}: {}\n", plan.mode, plain(&plan.mode_reason));
    let mut table = Table::new(&[
        ">#", "DO", "DESKTOP", "FROM", "COST", "REALLY", "STATE", "REASON",
    ]);
    for (i, step) in plan.steps.iter().enumerate() {
        let what = match step.action {
            StepAction::On => format!("switch {} on", step.host),
            StepAction::Off => format!("switch {} off", step.host),
            StepAction::Move => format!("move to {}", step.host),
        };
        let reason = match step.message.as_str() {
            "" => step.reason.clone(),
            message => format!("{}; {message}", step.reason),
        };
        table.row([
            (i + 1).to_string(),
            what,
            step.name.clone(),
            dash(step.from.as_ref()),
            step.price.as_ref().map_or_else(String::new, expected),
            step.cost.as_ref().map_or_else(String::new, really),
            word(&step.state),
            reason,
        ]);
    }
    if !table.is_empty() {
        out.push_str(&format!("{}\n", table.render()));
    }
    if let Some(price) = &plan.price {
        out.push_str(&format!("the moves: {}\n", super::plan::price(price)));
    }
    let mut table = Table::new(&["NOT DONE", "WHY"]);
    for entry in &plan.not_done {
        table.row([&entry.what, &entry.why]);
    }
    if !table.is_empty() {
        out.push_str(&format!("{}\n", table.render()));
    }
    for (when, s) in [("before", &plan.before), ("after", &plan.after)] {
        out.push_str(&format!(
            "{when}: {} hosts on, {} desktops, {} free seats, spread {:.2} %, {:.0} W\n",
            s.hosts_on, s.desktops, s.free_seats, s.spread_percent, s.watts
        ));
    }
    out
}

/// What a move is expected to cost, short.
fn expected(price: &Price) -> String {
    let seconds = price.seconds.map(|s| format!(", {s:.1} s"));
    format!(
        "{} {:.1} MiB{}, {} MiB there",
        super::plan::way(price.way),
        price.travels_mib,
        seconds.unwrap_or_default(),
        price.memory_mib
    )
}

/// What it really cost.
fn really(cost: &MoveCost) -> String {
    let mut parts = Vec::new();
    if let Some(way) = &cost.way {
        parts.push(word(way));
    }
    if let Some(bytes) = cost.bytes {
        parts.push(format!("{:.1} MiB", bytes as f64 / 1_048_576.0));
    }
    if let Some(ms) = cost.total_ms {
        parts.push(format!("{:.1} s", ms as f64 / 1000.0));
    }
    if let Some(kib) = cost.pss_after_kib {
        parts.push(format!("{} MiB there", kib / 1024));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_happens_next() {
        let mut now: AllocationNow = serde_json::from_value(serde_json::json!({
            "settings": {}, "mode": "power-saving", "mode_reason": "the settings say so", "seats_needed": 0,
            "last_acted_at": 1_800_000_000_000i64, "not_before": null, "running": null,
        }))
        .unwrap();
        assert!(next(&now).starts_with("nothing by itself: power-saving"));
        now.settings.automatic = true;
        now.next_look = Some(1_800_000_300_000);
        assert!(!next(&now).contains("nothing is done before"));
        now.not_before = Some(1_800_001_800_000);
        assert!(next(&now).contains("30 min pass after"), "{}", next(&now));
        now.running = Some(PlanId::new());
        assert_eq!(next(&now), "a plan is being carried out");
    }

    #[test]
    fn changes_are_made_by_name_and_unknown_ones_are_refused() {
        let change = |text: &[&str]| {
            let all: Vec<String> = text.iter().map(|t| (*t).to_owned()).collect();
            changed(Allocation::default(), &all)
        };
        let a = change(&[
            "automatic=true",
            "mode=power-saving",
            "min-hosts=2",
            "cpu_high=70.5",
        ])
        .unwrap();
        assert!(a.automatic);
        assert_eq!(
            (a.policy.mode, a.policy.min_hosts, a.policy.cpu_high),
            (Mode::PowerSaving, 2, 70.5)
        );
        for bad in [
            "automatic",
            "nonsense=1",
            "policy={}",
            "mode=nonsense",
            "min_hosts=-1",
        ] {
            assert!(change(&[bad]).is_err(), "{bad}");
        }
    }
}
