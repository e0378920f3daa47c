// Terms and holidays.
import { useState } from "react";
import { timetable as orders } from "../../api/actions";
import type { SchoolDays, SchoolDaysKind } from "../../api/types";
import { useWords } from "../../i18n";
import { dayText } from "../../lib/week";
import { Badge, Button, Segmented, TextField } from "../../ui/controls";
import { FormDialog, useConfirm } from "../../ui/dialog";
import { TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

export function DaysPanel({ days, admin }: { days: SchoolDays[]; admin: boolean }) {
  const { t, locale } = useWords();
  const confirm = useConfirm();
  const [editing, setEditing] = useState<SchoolDays | "new" | null>(null);
  const remove = useAction(orders.removeDays, { stale: ["timetable"], done: t.timetable.deleted });
  return (
    <div className="panel">
      <div className="row between wrap">
        <p className="muted">{t.timetable.daysLead}</p>
        {admin && (
          <Button icon="plus" onClick={() => setEditing("new")}>
            {t.timetable.addDays}
          </Button>
        )}
      </div>
      {days.length > 0 && (
        <TableWrap label={t.timetable.tabs.days}>
          <table>
            <thead>
              <tr>
                <th>{t.common.name}</th>
                <th>{t.timetable.kind}</th>
                <th>{t.timetable.first}</th>
                <th>{t.timetable.last}</th>
                <th><span className="sr-only">{t.common.actions}</span></th>
              </tr>
            </thead>
            <tbody>
              {days.map((d) => (
                <tr key={d.id}>
                  <td>
                    <strong>{d.name}</strong>
                  </td>
                  <td>
                    <Badge tone={d.kind === "term" ? "good" : "kept"}>{t.timetable.kinds[d.kind]}</Badge>
                  </td>
                  <td>{dayText(d.first, locale, "long")}</td>
                  <td>{dayText(d.last, locale, "long")}</td>
                  <td className="right">
                    {admin && (
                      <span className="row end">
                        <Button size="small" onClick={() => setEditing(d)}>
                          {t.timetable.change}
                        </Button>
                        <Button
                          size="small"
                          look="danger"
                          busy={remove.busy}
                          onClick={() =>
                            void confirm({ title: t.timetable.deleteTitle(d.name), body: t.timetable.deleteDaysBody, confirm: t.common.delete, danger: true }).then((yes) => {
                              if (yes) remove.run(d.id);
                            })
                          }
                        >
                          {t.common.delete}
                        </Button>
                      </span>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableWrap>
      )}
      {editing && <Form days={editing === "new" ? null : editing} onClose={() => setEditing(null)} />}
    </div>
  );
}

function Form({ days, onClose }: { days: SchoolDays | null; onClose: () => void }) {
  const { t } = useWords();
  const [body, setBody] = useState({ kind: days?.kind ?? ("holiday" as SchoolDaysKind), name: days?.name ?? "", first: days?.first ?? "", last: days?.last ?? "" });
  const save = useAction(() => orders.putDays(days?.id ?? null, { ...body, last: body.last || body.first }), { stale: ["timetable"], done: t.common.saved, onDone: onClose });
  return (
    <FormDialog title={days ? t.timetable.change : t.timetable.addDays} onClose={onClose} submit={t.common.save} busy={save.busy} onSubmit={() => save.run()}>
      <Segmented<SchoolDaysKind>
        label={t.timetable.kind}
        value={body.kind}
        onChange={(kind) => setBody({ ...body, kind })}
        options={[
          { value: "holiday", label: t.timetable.kinds.holiday },
          { value: "term", label: t.timetable.kinds.term },
        ]}
      />
      <TextField label={t.common.name} required maxLength={80} value={body.name} onChange={(e) => setBody({ ...body, name: e.target.value })} autoFocus />
      <div className="row fields">
        <TextField label={t.timetable.first} type="date" required value={body.first} onChange={(e) => setBody({ ...body, first: e.target.value })} />
        <TextField label={t.timetable.last} type="date" min={body.first} value={body.last} onChange={(e) => setBody({ ...body, last: e.target.value })} />
      </div>
    </FormDialog>
  );
}
