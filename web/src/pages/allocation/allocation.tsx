// Where desktops run and which hosts are on: the mode in force, plans with their reasons, the numbers.
import { useState } from "react";
import { allocation as orders } from "../../api/actions";
import { useAllocation, useEnergy, usePlans } from "../../api/queries";
import type { AllocationNow, PlanMode } from "../../api/types";
import { useWords } from "../../i18n";
import { dateTime } from "../../lib/format";
import { Button, Empty, Select } from "../../ui/controls";
import { Facts, Loaded, PageHead } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { AllocationForm } from "./form";
import { ActsByItself, Next } from "./next";
import { PlanCard } from "./plan";

const MODES: PlanMode[] = ["memory-balance", "compute-balance", "power-saving", "memory-balance-paper", "power-saving-paper"];

export function AllocationPage() {
  const { t } = useWords();
  const now = useAllocation();
  const plans = usePlans();
  return (
    <>
      <PageHead title={t.allocation.title} lead={t.allocation.lead} />
      <div className="stack wide-gap">
        <Loaded query={now}>{(a) => <Now now={a} />}</Loaded>
        <section className="stack" aria-labelledby="plans">
          <h2 id="plans">{t.allocation.plans}</h2>
          <Loaded query={plans}>
            {(list) =>
              list.length === 0 ? (
                <Empty icon="work" title={t.allocation.noPlans}>
                  {t.allocation.noPlansHint}
                </Empty>
              ) : (
                <div className="stack">
                  {list.map((plan, i) => (
                    <PlanCard key={plan.id} plan={plan} open={i === 0} />
                  ))}
                </div>
              )
            }
          </Loaded>
        </section>
        <Loaded query={now}>{(a) => <AllocationForm key={JSON.stringify(a.settings)} settings={a.settings} />}</Loaded>
      </div>
    </>
  );
}

function Now({ now }: { now: AllocationNow }) {
  const { t, locale } = useWords();
  const energy = useEnergy();
  const [mode, setMode] = useState<PlanMode | "">("");
  const stale = ["plans", "allocation"];
  const make = useAction(orders.plan, { stale });
  const drawn = energy.data?.reduce((sum, d) => sum + d.drawn_kwh, 0) ?? 0;
  const always = energy.data?.reduce((sum, d) => sum + d.always_on_kwh, 0) ?? 0;
  const when = (at: number | null | undefined) => (typeof at === "number" ? dateTime(at, locale) : t.allocation.never);
  return (
    <section className="panel" aria-labelledby="mode">
      <div className="row between wrap">
        <h2 id="mode">{t.allocation.modes[now.mode]}</h2>
        <ActsByItself now={now} />
      </div>
      <p className="muted">
        {t.allocation.modeHints[now.mode]} {t.allocation.because(t.say(now.mode_reason))}
      </p>
      <Next now={now} />
      <Facts
        items={[
          [t.allocation.seatsNeeded, now.seats_needed],
          [t.allocation.lastActed, when(now.last_acted_at)],
          always > 0 && [t.allocation.energy, t.allocation.energyOf(drawn.toFixed(1), (always - drawn).toFixed(1))],
        ]}
      />
      <div className="row wrap low">
        <Select label={t.allocation.planFor} value={mode} onChange={(e) => setMode(e.target.value as PlanMode | "")}>
          <option value="">{t.allocation.inForce}</option>
          {MODES.map((m) => (
            <option key={m} value={m}>
              {t.allocation.modes[m]}
            </option>
          ))}
        </Select>
        <Button busy={make.busy} onClick={() => make.run(mode || null, false)}>
          {t.allocation.planNow}
        </Button>
      </div>
    </section>
  );
}
