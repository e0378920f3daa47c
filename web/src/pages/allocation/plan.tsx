// One plan: what is done and why, what that costs, and what is not done and why not.
import { useState } from "react";
import { allocation as orders } from "../../api/actions";
import type { PlanMode, PlanRecord, PlanStep } from "../../api/types";
import { useWords, type Dictionary } from "../../i18n";
import { dateTime } from "../../lib/format";
import { Badge, Button } from "../../ui/controls";
import { TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { Cost, PlanCost } from "./cost";

const TONES = { shown: "info", idle: "idle", running: "busy", done: "good", failed: "bad", stopped: "warn" } as const;
const STEP_TONES = { waiting: "idle", begun: "busy", done: "good", failed: "bad", skipped: "warn" } as const;
/** A plan that was shown can be carried out for so long. */
const SHOWN_FOR = 10 * 60_000;
/** Rows of a long list that are shown at first. */
const ROWS = 25;

export function PlanCard({ plan, open }: { plan: PlanRecord; open: boolean }) {
  const { t, locale } = useWords();
  const stale = ["plans", "allocation", "moves", "hosts"];
  const run = useAction(orders.run, { stale });
  const stop = useAction(orders.stop, { stale });
  const [all, setAll] = useState(false);
  // What is under way is always among those that are shown.
  const at = plan.steps.findIndex((s) => s.state === "begun" || s.state === "waiting");
  const from = all || plan.steps.length <= ROWS || plan.state !== "running" ? 0 : Math.max(0, Math.min(at, plan.steps.length - ROWS));
  const steps = all ? plan.steps : plan.steps.slice(from, from + ROWS);
  const priced = plan.steps.some((s) => s.price || s.cost);
  const fresh = plan.state === "shown" && Date.now() - plan.at < SHOWN_FOR;
  return (
    <details className="panel" open={open}>
      <summary className="row between wrap">
        <span>
          <strong>{t.allocation.modes[plan.mode]}</strong>{" "}
          <span className="muted small">
            {dateTime(plan.at, locale)} · {plan.ordered_by ? t.allocation.orderedBy(plan.ordered_by) : t.allocation.byItself}
          </span>
        </span>
        <span className="row">
          <span className="muted small num">{t.allocation.stepCount(plan.steps.length)}</span>
          <Badge tone={TONES[plan.state]}>{t.allocation.states[plan.state]}</Badge>
        </span>
      </summary>
      {plan.message && <p>{t.say(plan.message)}</p>}
      <p className="muted small num">
        {t.allocation.before(plan.before.hosts_on, plan.before.free_seats, plan.before.spread_percent.toFixed(1))}
        {" → "}
        {t.allocation.before(plan.after.hosts_on, plan.after.free_seats, plan.after.spread_percent.toFixed(1))}
      </p>
      <PlanCost plan={plan} />
      {plan.steps.length > 0 && (
        <TableWrap label={t.allocation.steps}>
          <table className="plan-steps">
            <thead>
              <tr>
                <th>{t.allocation.step}</th>
                <th>{t.allocation.why}</th>
                {priced && <th>{t.allocation.cost.title}</th>}
                <th>{t.moves.state}</th>
              </tr>
            </thead>
            <tbody>
              {steps.map((step, i) => (
                <Step key={i} step={step} priced={priced} />
              ))}
            </tbody>
          </table>
        </TableWrap>
      )}
      {steps.length < plan.steps.length && (
        <Button look="quiet" onClick={() => setAll(true)}>
          {t.allocation.allSteps(plan.steps.length)}
        </Button>
      )}
      {plan.not_done.length > 0 && (
        <>
          <h3>{t.allocation.notDone}</h3>
          <TableWrap label={t.allocation.notDone}>
            <table>
              <tbody>
                {plan.not_done.map((n, i) => (
                  <tr key={i}>
                    <th scope="row">{about(n.what, t)}</th>
                    <td>{t.say(n.why)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableWrap>
        </>
      )}
      {fresh && (
        <Button look="primary" busy={run.busy} onClick={() => run.run(plan.id)}>
          {t.allocation.doIt}
        </Button>
      )}
      {plan.state === "running" && (
        <Button busy={stop.busy} onClick={() => stop.run(plan.id)}>
          {t.allocation.callOff}
        </Button>
      )}
    </details>
  );
}

/** What something that is not done is about: a host or a desktop by its name, or all of them. */
export function about(what: string, t: Dictionary): string {
  return Object.hasOwn(t.allocation.modes, what) ? t.allocation.modes[what as PlanMode] : t.allocation.about(what);
}

function Step({ step, priced }: { step: PlanStep; priced: boolean }) {
  const { t } = useWords();
  return (
    <tr>
      <td>
        <strong>{t.allocation.actions[step.action](step.host)}</strong>
        {step.action === "move" && (
          <span className="muted small block">
            {step.name || step.desktop}
            <span className="block">{t.allocation.from(step.from ?? "")}</span>
          </span>
        )}
      </td>
      <td className="reason">{t.say(step.reason)}</td>
      {priced && (
        <td className="num">
          <Cost step={step} />
        </td>
      )}
      <td>
        <Badge tone={STEP_TONES[step.state]}>{t.allocation.stepStates[step.state]}</Badge>
        {step.message && <span className="muted small block">{t.say(step.message)}</span>}
      </td>
    </tr>
  );
}
