// A calendar file: first what it would change, then the change.
import { useId, useState } from "react";
import { timetable as orders } from "../../api/actions";
import type { CalendarFile, FileResult, TimetableCourse } from "../../api/types";
import { useWords } from "../../i18n";
import { dayText } from "../../lib/week";
import { Badge, Button, CheckBox, Notice, Select } from "../../ui/controls";
import { Dialog } from "../../ui/dialog";
import { TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { WEEKDAYS } from "./lesson-form";

const TONES = { new: "good", changed: "warn", same: "idle" } as const;

export function ImportFile({ courses, admin, onClose }: { courses: TimetableCourse[]; admin: boolean; onClose: () => void }) {
  const { t } = useWords();
  const id = useId();
  const [name, setName] = useState("");
  const [body, setBody] = useState<CalendarFile>({ ics: "", course: null, courses: {}, holidays: admin, replace: true, skip_problems: false });
  const [result, setResult] = useState<FileResult | null>(null);
  const look = useAction(orders.previewFile, { onDone: setResult });
  const apply = useAction(orders.importFile, { stale: ["timetable"], done: t.timetable.imported, onDone: onClose });
  const change = (part: Partial<CalendarFile>) => {
    const next = { ...body, ...part };
    setBody(next);
    if (next.ics) look.run(next);
  };
  const changes = result ? result.lessons.filter((l) => l.course_name && l.change !== "same").length + result.holidays.length + result.removed : 0;
  const blocked = !!result && result.problems.length > 0 && !body.skip_problems;
  return (
    <Dialog title={t.timetable.importTitle} onClose={onClose} wide>
      <div className="dialog-body">
        <p>{t.timetable.importLead}</p>
        <div className="row wrap">
          <label htmlFor={id} className="button small">
            {t.timetable.chooseFile}
          </label>
          <input
            id={id}
            type="file"
            className="sr-only"
            accept=".ics,text/calendar"
            onChange={(e) => {
              const file = e.target.files?.[0];
              if (!file) return;
              setName(file.name);
              setResult(null);
              void file.text().then((ics) => change({ ics }));
            }}
          />
          <span className="muted">{name}</span>
        </div>
        <Select label={t.timetable.importCourse} value={body.course ?? ""} onChange={(e) => change({ course: e.target.value || null })}>
          <option value="">{t.timetable.byTitle}</option>
          {courses.map((c) => (
            <option key={c.course} value={c.course}>
              {c.name}
            </option>
          ))}
        </Select>
        {admin && <CheckBox label={t.timetable.importHolidays} checked={body.holidays ?? false} onChange={(e) => change({ holidays: e.target.checked })} />}
        <CheckBox label={t.timetable.importReplace} hint={t.timetable.importReplaceHint} checked={body.replace ?? false} onChange={(e) => change({ replace: e.target.checked })} />
        {result && <Preview result={result} body={body} courses={courses} onChange={change} />}
      </div>
      <footer>
        <Button onClick={onClose}>{t.common.cancel}</Button>
        <Button look="primary" busy={apply.busy || look.busy} disabled={!result || changes === 0 || blocked} onClick={() => apply.run(body)}>
          {result ? t.timetable.apply(changes) : t.timetable.import}
        </Button>
      </footer>
    </Dialog>
  );
}

function Preview({ result, body, courses, onChange }: { result: FileResult; body: CalendarFile; courses: TimetableCourse[]; onChange: (part: Partial<CalendarFile>) => void }) {
  const { t, locale } = useWords();
  return (
    <section aria-live="polite" className="stack">
      {result.problems.length > 0 && (
        <Notice tone="warn">
          <p>{t.timetable.problems(result.problems.length)}</p>
          <ul className="plain-list">
            {result.problems.slice(0, 20).map((p) => (
              <li key={`${p.line}/${p.message}`}>
                {t.timetable.problem(p.line, p.summary)} {t.say(p.message)}
              </li>
            ))}
          </ul>
          <CheckBox label={t.timetable.skipProblems} checked={body.skip_problems ?? false} onChange={(e) => onChange({ skip_problems: e.target.checked })} />
        </Notice>
      )}
      {result.unknown_courses.map((title) => (
        <Select key={title} label={t.timetable.unknownCourse(title)} value="" onChange={(e) => onChange({ courses: { ...body.courses, [title]: e.target.value } })}>
          <option value="">{t.timetable.leaveOut}</option>
          {courses.map((c) => (
            <option key={c.course} value={c.course}>
              {c.name}
            </option>
          ))}
        </Select>
      ))}
      {result.holidays.length > 0 && <p>{t.timetable.newHolidays(result.holidays.map((h) => h.name || dayText(h.first, locale)).join(t.timetable.comma))}</p>}
      {result.removed > 0 && <p>{t.timetable.removed(result.removed)}</p>}
      {result.lessons.length > 0 ? (
        <TableWrap label={t.timetable.tabs.lessons} short>
          <table>
            <thead>
              <tr>
                <th>{t.timetable.event}</th>
                <th>{t.timetable.course}</th>
                <th>{t.timetable.when}</th>
                <th>{t.timetable.room}</th>
                <th />
              </tr>
            </thead>
            <tbody>
              {result.lessons.map((l, i) => (
                <tr key={i}>
                  <td>{l.summary}</td>
                  <td>{l.course_name ?? ""}</td>
                  <td>
                    {l.weekday ? t.timetable.weekdays[l.weekday as (typeof WEEKDAYS)[number]] : l.date ? dayText(l.date, locale) : ""} {l.begin}–{l.end}
                    {l.exceptions > 0 && <span className="muted small block">{t.timetable.exceptions(l.exceptions)}</span>}
                  </td>
                  <td>{l.room ?? ""}</td>
                  <td>{l.course_name ? <Badge tone={TONES[l.change]}>{t.timetable.changes[l.change]}</Badge> : <Badge tone="warn">{t.timetable.leftOut}</Badge>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableWrap>
      ) : (
        <p className="muted">{t.timetable.noLessons}</p>
      )}
    </section>
  );
}
