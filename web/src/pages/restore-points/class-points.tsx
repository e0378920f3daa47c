// A class as it was: what was taken together, and when more is taken by itself.
import { useState } from "react";
import { classPoints } from "../../api/actions";
import { useCoursePoints, useOperations, usePointSchedule } from "../../api/queries";
import type { Course, PointBatch, PointSchedule } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes, dateTime } from "../../lib/format";
import { Badge, Button, CheckBox, Notice, TextField } from "../../ui/controls";
import { useConfirm } from "../../ui/dialog";
import { Loaded, Menu, TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { OperationRow } from "../operations/row";
import { STALE } from "./desktop-points";

export function ClassPoints({ course }: { course: Course }) {
  const { t } = useWords();
  const confirm = useConfirm();
  const points = useCoursePoints(course.id);
  const operations = useOperations();
  const [note, setNote] = useState("");
  const take = useAction(() => classPoints.take(course.id, note.trim()), { stale: STALE, onDone: () => setNote("") });
  const undo = useAction(() => classPoints.undo(course.id), { stale: STALE });
  const running = operations.data?.filter((o) => o.state === "running" && o.target === `course/${course.id}`) ?? [];
  const ask = async (desktops: number) => {
    const yes = await confirm({ title: t.points.undoTitle, body: `${t.points.undoBody} ${t.courses.affects(desktops)}`, confirm: t.points.undo, danger: true });
    if (yes) undo.run();
  };
  return (
    <div className="stack">
      <section className="panel" aria-labelledby="points">
        <h2 id="points">{t.points.title}</h2>
        <p className="muted">{t.points.lead}</p>
        <Loaded query={points} rows={2}>
          {(all) => (
            <div className="stack">
              <form
                className="row wrap low"
                onSubmit={(event) => {
                  event.preventDefault();
                  take.run();
                }}
              >
                <TextField label={t.points.note} value={note} onChange={(e) => setNote(e.target.value)} maxLength={200} placeholder={t.points.notePlaceholder} />
                <Button type="submit" look="primary" icon="plus" busy={take.busy}>
                  {t.points.takeClass}
                </Button>
                {all.undo > 0 && (
                  <Button icon="back" busy={undo.busy} disabled={all.restoring > 0} onClick={() => void ask(all.undo)}>
                    {t.points.undoClass(all.undo)}
                  </Button>
                )}
              </form>
              {running.map((o) => (
                <div key={o.id} className="panel slim">
                  <OperationRow operation={o} />
                </div>
              ))}
              {all.batches.length === 0 ? (
                <p className="muted">{t.points.none}</p>
              ) : (
                <TableWrap label={t.points.title}>
                  <table>
                    <thead>
                      <tr>
                        <th>{t.points.taken}</th>
                        <th className="right">{t.points.desktops}</th>
                        <th className="right">{t.points.takes}</th>
                        <th>{t.points.state}</th>
                        <th aria-label={t.common.more} />
                      </tr>
                    </thead>
                    <tbody>
                      {all.batches.map((b) => (
                        <Batch key={b.batch} course={course} batch={b} busy={all.restoring > 0} />
                      ))}
                    </tbody>
                  </table>
                </TableWrap>
              )}
            </div>
          )}
        </Loaded>
      </section>
      <Schedule course={course} />
    </div>
  );
}

function Batch({ course, batch: b, busy }: { course: Course; batch: PointBatch; busy: boolean }) {
  const { t, locale } = useWords();
  const confirm = useConfirm();
  const restore = useAction(() => classPoints.restore(course.id, b.batch), { stale: STALE });
  const remove = useAction(() => classPoints.remove(course.id, b.batch), { stale: STALE });
  const when = dateTime(b.taken, locale);
  const ask = async () => {
    const yes = await confirm({ title: t.points.restoreTitle(when), body: `${t.points.restoreBody} ${t.courses.affects(b.ready)}`, confirm: t.points.restore, danger: true });
    if (yes) restore.run();
  };
  return (
    <tr>
      <td>
        <strong className="num">{when}</strong>
        <span className="muted small block">{b.note || t.points.origins[b.origin]}</span>
      </td>
      <td className="right num">
        {b.ready}
        {b.disk_only > 0 && (
          <span className="muted small block" title={t.points.diskOnlyHint}>
            {t.points.diskOnly(b.disk_only)}
          </span>
        )}
      </td>
      <td className="right num">{bytes(b.bytes)}</td>
      <td>
        {b.taking > 0 ? <Badge tone="busy">{t.points.states.taking}</Badge> : b.failed > 0 ? <Badge tone="bad">{t.points.failedOf(b.failed)}</Badge> : <Badge tone="good">{t.points.states.ready}</Badge>}
        {b.message && <span className="muted small block">{t.say(b.message)}</span>}
      </td>
      <td className="right">
        <span className="row end">
          {b.ready > 0 && (
            <Button size="small" icon="back" busy={restore.busy} disabled={busy} onClick={() => void ask()}>
              {t.points.restoreClass}
            </Button>
          )}
          {b.taking === 0 && <Menu small label={t.common.more} items={[{ label: t.points.remove, icon: "trash", onSelect: () => remove.run() }]} />}
        </span>
      </td>
    </tr>
  );
}

function Schedule({ course }: { course: Course }) {
  const { t } = useWords();
  const schedule = usePointSchedule(course.id);
  return (
    <section className="panel" aria-labelledby="point-schedule">
      <h2 id="point-schedule">{t.points.schedule}</h2>
      <Loaded query={schedule} rows={1}>
        {(now) => <ScheduleForm key={JSON.stringify(now)} course={course} now={now} />}
      </Loaded>
    </section>
  );
}

function ScheduleForm({ course, now }: { course: Course; now: PointSchedule }) {
  const { t } = useWords();
  const [wanted, setWanted] = useState(now);
  const save = useAction(() => classPoints.setSchedule(course.id, wanted), { stale: ["restore-points"], done: t.common.saved });
  const number = (field: "every_min" | "keep_last" | "keep_hourly", label: string, min: number, max: number, hint?: string) => (
    <TextField label={label} type="number" min={min} max={max} step={1} required value={wanted[field]} hint={hint} onChange={(e) => setWanted({ ...wanted, [field]: e.target.valueAsNumber || 0 })} />
  );
  return (
    <form
      className="form"
      onSubmit={(event) => {
        event.preventDefault();
        save.run();
      }}
    >
      <p className="muted">{t.points.scheduleLead}</p>
      {number("every_min", t.points.every, 0, 1440, t.points.everyHint)}
      <div className="fields">
        {number("keep_last", t.points.keepLast, 1, 100)}
        {number("keep_hourly", t.points.keepHourly, 0, 100)}
      </div>
      <CheckBox label={t.points.ownRestore} checked={wanted.own_restore} onChange={(e) => setWanted({ ...wanted, own_restore: e.target.checked })} />
      {wanted.every_min > 0 && <Notice>{t.points.scheduleNotice}</Notice>}
      <div className="row">
        <Button type="submit" look="primary" busy={save.busy}>
          {t.common.save}
        </Button>
      </div>
    </form>
  );
}
