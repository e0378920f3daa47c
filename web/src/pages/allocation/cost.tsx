// What a move is expected to cost, and what it really cost.
import type { PlanRecord, PlanStep } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes, kib, mib, seconds } from "../../lib/format";

const WAYS = { delta: "delta", migration: "live" } as const;

export function Cost({ step }: { step: PlanStep }) {
  const { t } = useWords();
  const { price, cost } = step;
  const took = (ms: number | null | undefined) => (typeof ms === "number" ? seconds(ms, t) : "");
  const join = (...parts: string[]) => parts.filter(Boolean).join(" · ");
  return (
    <>
      {price && (
        <span className="block">
          {join(mib(price.travels_mib), typeof price.seconds === "number" ? took(price.seconds * 1000) : "")}
          <span className="muted small block">{join(t.moves.ways[WAYS[price.way]], t.allocation.cost.there(mib(price.memory_mib)))}</span>
          {price.more_mib > 0 && <span className="small block">{t.allocation.cost.more(mib(price.more_mib))}</span>}
        </span>
      )}
      {cost && (
        <span className="small block">
          {t.allocation.cost.really(join(typeof cost.bytes === "number" ? bytes(cost.bytes) : "", took(cost.total_ms)))}
          <span className="muted block">
            {join(
              cost.way && (!price || cost.way !== WAYS[price.way]) ? t.moves.ways[cost.way] : "",
              typeof cost.stand_still_ms === "number" ? t.allocation.cost.still(took(cost.stand_still_ms)) : "",
              typeof cost.pss_after_kib === "number" ? t.allocation.cost.there(kib(cost.pss_after_kib)) : "",
            )}
          </span>
        </span>
      )}
    </>
  );
}

/** All moves of a plan in a sentence; nothing where there are none. */
export function PlanCost({ plan }: { plan: PlanRecord }) {
  const { t } = useWords();
  const { price } = plan;
  if (!price) return null;
  const moves = plan.steps.filter((s) => s.action === "move");
  const done = moves.filter((s) => s.cost);
  const sum = (of: (s: PlanStep) => number | null | undefined) => done.reduce((all, s) => all + (of(s) ?? 0), 0);
  const words = t.allocation.cost;
  const took = (s: number) => seconds(s * 1000, t);
  return (
    <p className="muted small num">
      <span className="block">
        {words.all(moves.length, mib(price.travels_mib))}
        {typeof price.seconds === "number" && words.oneByOne(took(price.seconds))}
        {price.more_mib > 0 && words.moreInAll(mib(price.more_mib))}
      </span>
      {done.length > 0 && <span className="block">{words.reallyInAll(done.length, bytes(sum((s) => s.cost?.bytes)), took(sum((s) => s.cost?.total_ms) / 1000))}</span>}
    </p>
  );
}
