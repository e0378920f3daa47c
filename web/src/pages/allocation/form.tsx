// Every number of the plans.
import { useState } from "react";
import { allocation as orders } from "../../api/actions";
import type { Allocation, PlanMode, PlanPolicy } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, CheckBox, Select, TextField } from "../../ui/controls";
import { useAction } from "../../ui/toast";

const MODES: PlanMode[] = ["memory-balance", "compute-balance", "power-saving", "memory-balance-paper", "power-saving-paper"];
type Own = Exclude<keyof Allocation, "automatic" | "policy">;
type Numbers = Exclude<keyof PlanPolicy, "mode" | "ordered" | "spread_owner" | "spread_course" | "balance_by" | "seat_mib">;

export function AllocationForm({ settings }: { settings: Allocation }) {
  const { t } = useWords();
  const [draft, setDraft] = useState(settings);
  const save = useAction(orders.change, { stale: ["allocation", "plans"], done: t.common.saved });
  const policy = draft.policy;
  const set = (change: Partial<PlanPolicy>) => setDraft({ ...draft, policy: { ...policy, ...change } });
  const shown = (n: number) => (Number.isNaN(n) ? "" : n);
  const own = (key: Own, min: number, max: number) => (
    <TextField label={t.allocation.fields[key]} type="number" required min={min} max={max} value={shown(draft[key])} onChange={(e) => setDraft({ ...draft, [key]: e.target.valueAsNumber })} />
  );
  const number = (key: Numbers, min: number, max: number, step: number | "any" = 1) => (
    <TextField label={t.allocation.fields[key]} type="number" required min={min} max={max} step={step} value={shown(policy[key])} onChange={(e) => set({ [key]: e.target.valueAsNumber })} />
  );
  const spread = (key: "spread_owner" | "spread_course") => (
    <Select label={t.allocation.fields[key]} value={policy[key]} onChange={(e) => set({ [key]: e.target.value as PlanPolicy["spread_owner"] })}>
      {(["off", "prefer", "require"] as const).map((v) => (
        <option key={v} value={v}>
          {t.allocation.spreads[v]}
        </option>
      ))}
    </Select>
  );
  return (
    <form
      className="panel form"
      onSubmit={(event) => {
        event.preventDefault();
        save.run(draft);
      }}
    >
      <h2>{t.allocation.settings}</h2>
      <CheckBox label={t.allocation.fields.automatic} hint={t.allocation.automaticHint} checked={draft.automatic} onChange={(e) => setDraft({ ...draft, automatic: e.target.checked })} />
      <Select label={t.allocation.fields.mode} value={policy.mode} onChange={(e) => set({ mode: e.target.value as PlanMode })}>
        {MODES.map((m) => (
          <option key={m} value={m}>
            {t.allocation.modes[m]}
          </option>
        ))}
      </Select>
      <div className="fields">
        {own("every_minutes", 1, 1440)}
      {own("average_minutes", 2, 60)}
        {number("pause_minutes", 0, 10_080)}
        {number("stale_after_s", 90, 3600)}
        {own("settle_s", 0, 86_400)}
        {number("overcommit", 1, 64, "any")}
        {spread("spread_owner")}
        {spread("spread_course")}
      </div>
      <h2>{t.allocation.modes["power-saving"]}</h2>
      <div className="fields">
        {number("off_threshold_seats", 0, 1_000_000)}
        {number("on_threshold_seats", 0, 1_000_000)}
        {number("min_hosts", 0, 10_000)}
        <TextField label={t.allocation.fields.seat_mib} hint={t.allocation.seatMibHint} type="number" min={1} value={policy.seat_mib ?? ""} onChange={(e) => set({ seat_mib: Number.isNaN(e.target.valueAsNumber) ? null : e.target.valueAsNumber })} />
        {number("min_on_minutes", 0, 10_080)}
        {number("min_off_minutes", 0, 10_080)}
        {own("wake_timeout_s", 10, 3600)}
        {own("off_timeout_s", 10, 3600)}
      </div>
      <h2>{t.allocation.modes["memory-balance"]}</h2>
      <div className="fields">
        <Select label={t.allocation.fields.balance_by} value={policy.balance_by} onChange={(e) => set({ balance_by: e.target.value as PlanPolicy["balance_by"] })}>
          {(["auto", "seats", "memory"] as const).map((v) => (
            <option key={v} value={v}>
              {t.allocation.balances[v]}
            </option>
          ))}
        </Select>
        {number("balance_min_gain", 0, 100, "any")}
      </div>
      <h2>{t.allocation.modes["compute-balance"]}</h2>
      <div className="fields">
        {number("cpu_high", 0, 1000, "any")}
        {number("cpu_low", 0, 1000, "any")}
        {number("cpu_lasting", 0, 1, "any")}
        {number("cpu_min_gain", 0, 100, "any")}
      </div>
      <h2>{t.allocation.measured}</h2>
      <div className="fields">
        {own("keep_minutes_h", 1, 168)}
        {own("keep_tens_days", 1, 400)}
      </div>
      <div>
        <Button type="submit" look="primary" busy={save.busy}>
          {t.common.save}
        </Button>
      </div>
    </form>
  );
}
