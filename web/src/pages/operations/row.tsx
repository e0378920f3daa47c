// One piece of work: what, how far, and what failed.
import { operations } from "../../api/actions";
import type { Operation } from "../../api/types";
import { useWords, type Dictionary } from "../../i18n";
import { clock, seconds, stopwatch } from "../../lib/format";
import { Badge, IconButton } from "../../ui/controls";
import { Progress, useNow } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

export const kindText = (kind: string, t: Dictionary) => t.operations.kind[kind] ?? kind;

const TONES = { running: "busy", done: "good", failed: "bad", cancelled: "idle" } as const;

export function OperationRow({ operation: o, plain }: { operation: Operation; plain?: boolean }) {
  const { t, locale } = useWords();
  const running = o.state === "running";
  const now = useNow(running ? 1000 : 60_000);
  const cancel = useAction(() => operations.cancel(o.id), { stale: ["operations"] });
  const what = kindText(o.kind, t);
  return (
    <article className={`operation state-${o.state}`} aria-label={`${what} ${o.target_name}`}>
      <div className="row between">
        <p className="operation-what">
          <strong>{what}</strong> {o.target_name}
        </p>
        {running ? (
          <span className="row">
            <span className="muted num">{stopwatch(now - o.created)}</span>
            <IconButton icon="close" label={t.operations.cancel} busy={cancel.busy} onClick={() => cancel.run()} className="small" />
          </span>
        ) : (
          <Badge tone={TONES[o.state]}>{t.operations.state[o.state]}</Badge>
        )}
      </div>
      {running && <Progress label={what} done={o.done} total={o.total > 1 ? o.total : null} />}
      <p className="muted operation-meta">
        {o.step && <span>{t.say(o.step)}</span>}
        {o.total > 1 && <span className="num">{t.operations.progress(o.done, o.total)}</span>}
        {!plain && <span>{t.operations.by(o.requested_by)}</span>}
        {!running && <span className="num">{clock(o.created, locale)}</span>}
        {o.ended ? <span className="num">{t.operations.took(seconds(o.ended - o.created, t))}</span> : null}
      </p>
      {o.failures.length > 0 && (
        <details open={o.state === "failed" && o.failures.length <= 3}>
          <summary>{t.operations.failures(o.failures.length)}</summary>
          <ul className="failures">
            {o.failures.map((f) => (
              <li key={f.target + f.message}>
                <strong>{f.name}</strong> {t.say(f.message)}
              </li>
            ))}
          </ul>
        </details>
      )}
    </article>
  );
}
