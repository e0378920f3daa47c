// Settings of the whole classroom. For administrators.
import { useState } from "react";
import { settings as orders } from "../../api/actions";
import { useHealth, useSettings } from "../../api/queries";
import type { Settings, SettingsPatch } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, TextField } from "../../ui/controls";
import { Loaded, PageHead } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

export function SettingsPage() {
  const { t } = useWords();
  const settings = useSettings();
  const health = useHealth();
  return (
    <>
      <PageHead title={t.settings.title} lead={t.settings.lead} />
      <Loaded query={settings}>{(s) => <Form key={JSON.stringify(s)} settings={s} />}</Loaded>
      <p className="muted small">
        {health.data && t.settings.version(health.data.version)} · <a href="licenses.md">{t.settings.licenses}</a>
      </p>
    </>
  );
}

function Form({ settings }: { settings: Settings }) {
  const { t } = useWords();
  const [draft, setDraft] = useState(settings);
  const save = useAction(orders.change, { stale: ["settings", "me"], done: t.common.saved });
  const number = (key: Exclude<keyof Settings, "classroom_name">, label: string, hint: string | undefined, min: number, max: number, step = 1) => (
    <TextField label={label} hint={hint} type="number" required min={min} max={max} step={step} value={Number.isNaN(draft[key]) ? "" : draft[key]} onChange={(e) => setDraft({ ...draft, [key]: e.target.valueAsNumber })} />
  );
  return (
    <form
      className="panel form"
      onSubmit={(event) => {
        event.preventDefault();
        const changed: SettingsPatch = Object.fromEntries(Object.entries(draft).filter(([key, value]) => value !== settings[key as keyof Settings]));
        save.run(changed);
      }}
    >
      <h2>{t.settings.groupClass}</h2>
      <TextField label={t.settings.classroomName} hint={t.settings.classroomNameHint} value={draft.classroom_name} onChange={(e) => setDraft({ ...draft, classroom_name: e.target.value })} required maxLength={80} />
      {number("session_idle_minutes", t.settings.idle, undefined, 1, 525_600)}
      <h2>{t.settings.groupRoom}</h2>
      {number("overcommit", t.settings.overcommit, t.settings.overcommitHint, 1, 64, 0.1)}
      {number("seats_per_host", t.settings.seats, t.settings.seatsHint, 0, 10_000)}
      {number("starts_at_once", t.settings.startsAtOnce, t.settings.startsAtOnceHint, 1, 64)}
      <h2>{t.settings.groupMoves}</h2>
      {number("moves_per_host", t.settings.movesAtOnce, t.settings.movesAtOnceHint, 1, 32)}
      {number("move_mbit_per_s", t.settings.moveLimit, t.settings.moveLimitHint, 0, 1_000_000)}
      {number("move_timeout_s", t.settings.moveTimeout, t.settings.moveTimeoutHint, 5, 3600)}
      <h2>{t.settings.groupTime}</h2>
      {number("fork_timeout_s", t.settings.forkTimeout, undefined, 1, 86_400)}
      {number("cold_timeout_s", t.settings.coldTimeout, undefined, 1, 86_400)}
      <div>
        <Button type="submit" look="primary" busy={save.busy}>
          {t.common.save}
        </Button>
      </div>
    </form>
  );
}
