// What happens next, in a sentence, and the switch that decides whether anything does.
import { allocation as orders } from "../../api/actions";
import type { AllocationNow } from "../../api/types";
import { useWords } from "../../i18n";
import { minute } from "../../lib/format";
import { Notice } from "../../ui/controls";
import { useAction } from "../../ui/toast";
import { about } from "./plan";

export function ActsByItself({ now }: { now: AllocationNow }) {
  const { t } = useWords();
  const save = useAction(orders.change, { stale: ["allocation", "plans"] });
  return (
    <label className="switch">
      <input type="checkbox" role="switch" checked={now.settings.automatic} disabled={save.busy} onChange={(e) => save.run({ ...now.settings, automatic: e.target.checked })} />
      <span>{now.settings.automatic ? t.allocation.automatic : t.allocation.byHand}</span>
    </label>
  );
}

export function Next({ now }: { now: AllocationNow }) {
  const { t, locale } = useWords();
  const words = t.allocation.next;
  const mode = t.allocation.modes[now.mode];
  if (!now.settings.automatic) return <Notice tone="warn">{words.off(mode)}</Notice>;
  if (now.running) return <Notice>{words.running}</Notice>;
  const at = (ms: number) => minute(ms, locale);
  const look = now.last_look;
  return (
    <Notice>
      <p>
        {typeof now.next_look === "number" && words.look(at(now.next_look), now.settings.every_minutes)}{" "}
        {typeof now.not_before === "number" && typeof now.last_acted_at === "number" && words.notBefore(at(now.not_before), now.settings.policy.pause_minutes, at(now.last_acted_at))}
      </p>
      {look?.state === "idle" && (
        <>
          <p className="muted">{words.nothing(at(look.at))}</p>
          <ul className="reasons muted">
            {look.why.map((n, i) => (
              <li key={i}>
                {about(n.what, t)}: {t.say(n.why)}
              </li>
            ))}
          </ul>
        </>
      )}
    </Notice>
  );
}
