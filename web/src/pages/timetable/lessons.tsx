// All lessons as a table, with what is different on some days.
import { timetable as orders } from "../../api/actions";
import type { Lesson, Timetable } from "../../api/types";
import { useWords } from "../../i18n";
import { dayText } from "../../lib/week";
import { Button, Empty, Tag } from "../../ui/controls";
import { TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { WEEKDAYS } from "./lesson-form";

export function LessonsPanel({ timetable, onEdit }: { timetable: Timetable; onEdit: (lesson: Lesson) => void }) {
  const { t } = useWords();
  const order = (l: Lesson) => (l.weekday ? WEEKDAYS.indexOf(l.weekday as (typeof WEEKDAYS)[number]) : 7);
  const lessons = [...timetable.lessons].sort(
    (a, b) => a.course_name.localeCompare(b.course_name) || order(a) - order(b) || (a.date ?? "").localeCompare(b.date ?? "") || a.begin.localeCompare(b.begin),
  );
  if (lessons.length === 0) {
    return (
      <Empty icon="table" title={t.timetable.none}>
        {t.timetable.noneHint}
      </Empty>
    );
  }
  return (
    <div className="panel">
      <TableWrap label={t.timetable.tabs.lessons}>
        <table>
          <thead>
            <tr>
              <th>{t.timetable.course}</th>
              <th>{t.timetable.when}</th>
              <th>{t.timetable.room}</th>
              <th>{t.timetable.different}</th>
              <th><span className="sr-only">{t.common.actions}</span></th>
            </tr>
          </thead>
          <tbody>
            {lessons.map((lesson) => (
              <Row key={lesson.id} lesson={lesson} onEdit={onEdit} />
            ))}
          </tbody>
        </table>
      </TableWrap>
    </div>
  );
}

function Row({ lesson: l, onEdit }: { lesson: Lesson; onEdit: (lesson: Lesson) => void }) {
  const { t, locale } = useWords();
  const restore = useAction(orders.restore, { stale: ["timetable"], done: t.common.saved });
  const day = l.weekday ? t.timetable.weekdays[l.weekday as (typeof WEEKDAYS)[number]] : l.date ? dayText(l.date, locale) : "";
  const limits = [l.from && t.timetable.fromDay(dayText(l.from, locale)), l.until && t.timetable.untilText(dayText(l.until, locale))].filter(Boolean);
  return (
    <tr>
      <td>
        <strong>{l.course_name}</strong>
        {l.title && <span className="muted small block">{l.title}</span>}
      </td>
      <td>
        {day} {l.begin}–{l.end} {l.every_weeks > 1 && <Tag>{t.timetable.every(l.every_weeks)}</Tag>} {l.zone && <Tag>{l.zone}</Tag>}
        {limits.length > 0 && <span className="muted small block">{limits.join(" ")}</span>}
      </td>
      <td>{l.room ?? ""}</td>
      <td>
        <ul>
          {l.exceptions.map((e) => (
            <li key={e.date} className="small">
              {dayText(e.date, locale)}: {e.cancelled || !e.to_date ? t.timetable.cancelled : t.timetable.movedTo(dayText(e.to_date, locale), e.begin ?? "")}{" "}
              {l.may_edit && (
                <Button look="quiet" size="small" busy={restore.busy} onClick={() => restore.run(l.id, e.date)}>
                  {t.timetable.asAlways}
                </Button>
              )}
            </li>
          ))}
        </ul>
      </td>
      <td className="right">
        {l.may_edit && (
          <Button size="small" onClick={() => onEdit(l)}>
            {t.timetable.edit}
          </Button>
        )}
      </td>
    </tr>
  );
}
