// A desktop as it was: the points it can go back to.
import { restorePoints } from "../../api/actions";
import { useDesktopPoints } from "../../api/queries";
import type { Desktop, RestorePoint } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes, dateTime } from "../../lib/format";
import { Badge, Button } from "../../ui/controls";
import { Dialog, useConfirm } from "../../ui/dialog";
import { Loaded, Menu, TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

export const STALE = ["restore-points", "desktops", "operations"];
const TONES = { taking: "busy", ready: "good", failed: "bad", damaged: "bad" } as const;

export function DesktopPoints({ desktop, staff }: { desktop: Desktop; staff: boolean }) {
  const { t } = useWords();
  const confirm = useConfirm();
  const points = useDesktopPoints(desktop.id);
  const take = useAction(() => restorePoints.take(desktop.id), { stale: STALE, done: t.points.ordered });
  const undo = useAction(() => restorePoints.undo(desktop.id), { stale: STALE, done: t.points.restoring });
  const ask = async () => {
    if (await confirm({ title: t.points.undoTitle, body: t.points.undoBody, confirm: t.points.undo })) undo.run();
  };
  return (
    <Loaded query={points} rows={1}>
      {(list) => (
        <div className="stack">
          <div className="row wrap">
            {staff && (
              <Button icon="plus" busy={take.busy} onClick={() => take.run()}>
                {t.points.take}
              </Button>
            )}
            {list.some((p) => p.origin === "undo") && (
              <Button icon="back" busy={undo.busy} onClick={() => void ask()}>
                {t.points.undo}
              </Button>
            )}
          </div>
          {list.length === 0 ? (
            <p className="muted">{t.points.none}</p>
          ) : (
            <TableWrap label={t.points.title} short>
              <table>
                <thead>
                  <tr>
                    <th>{t.points.taken}</th>
                    <th>{t.points.holds}</th>
                    <th className="right">{t.points.takes}</th>
                    <th>{t.points.state}</th>
                    <th aria-label={t.common.more} />
                  </tr>
                </thead>
                <tbody>
                  {list.map((p) => (
                    <Row key={p.id} point={p} staff={staff} />
                  ))}
                </tbody>
              </table>
            </TableWrap>
          )}
        </div>
      )}
    </Loaded>
  );
}

function Row({ point: p, staff }: { point: RestorePoint; staff: boolean }) {
  const { t, locale } = useWords();
  const confirm = useConfirm();
  const restore = useAction(() => restorePoints.restore(p.desktop, p.id), { stale: STALE, done: t.points.restoring });
  const remove = useAction(() => restorePoints.remove(p.id), { stale: STALE });
  const when = dateTime(p.taken, locale);
  const ask = async () => {
    if (await confirm({ title: t.points.restoreTitle(when), body: t.points.restoreBody, confirm: t.points.restore, danger: true })) restore.run();
  };
  return (
    <tr>
      <td>
        <strong className="num">{when}</strong>
        <span className="muted small block">{p.note || t.points.origins[p.origin]}</span>
      </td>
      <td>{p.state === "ready" ? t.points.contents[p.holds] : ""}</td>
      <td className="right num">
        {typeof p.bytes === "number" ? bytes(p.bytes) : ""}
        {typeof p.stand_still_ms === "number" && p.stand_still_ms > 0 && <span className="muted small block">{t.points.stoodStill(p.stand_still_ms)}</span>}
      </td>
      <td>
        <Badge tone={TONES[p.state]}>{t.points.states[p.state]}</Badge>
        {p.message && <span className="muted small block">{t.say(p.message)}</span>}
      </td>
      <td className="right">
        <span className="row">
          {p.state === "ready" && (
            <Button size="small" icon="back" busy={restore.busy} onClick={() => void ask()}>
              {t.points.restore}
            </Button>
          )}
          {staff && p.state !== "taking" && <Menu small label={t.common.more} items={[{ label: t.points.remove, icon: "trash", onSelect: () => remove.run() }]} />}
        </span>
      </td>
    </tr>
  );
}

export function DesktopPointsDialog({ desktop, onClose }: { desktop: Desktop; onClose: () => void }) {
  const { t } = useWords();
  return (
    <Dialog title={t.points.titleOf(desktop.course_name)} onClose={onClose} wide>
      <div className="dialog-body">
        <DesktopPoints desktop={desktop} staff={false} />
      </div>
    </Dialog>
  );
}
