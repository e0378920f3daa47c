// What the timetable does by itself: for each course, and for the whole school.
import { useState } from "react";
import { timetable as orders } from "../../api/actions";
import type { CourseTimetable, LessonEnd, Timetable, TimetableCourse, TimetableRules } from "../../api/types";
import { useWords } from "../../i18n";
import { useAllocation } from "../../api/queries";
import { Button, CheckBox, Notice, Select, TextField } from "../../ui/controls";
import { TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

const ENDS: LessonEnd[] = ["suspend", "reset", "stop", "keep"];

export function RulesPanel({ timetable, admin }: { timetable: Timetable; admin: boolean }) {
  const { t } = useWords();
  return (
    <div className="stack wide-gap">
      <div className="panel">
        <h2 id="course-rules">{t.timetable.courseRules}</h2>
        <p className="muted">{t.timetable.courseRulesLead}</p>
        <TableWrap label={t.timetable.courseRules}>
          <table>
            <thead>
              <tr>
                <th>{t.timetable.course}</th>
                <th>{t.timetable.starts}</th>
                <th>{t.timetable.atEnd}</th>
                <th>{t.timetable.grace}</th>
              </tr>
            </thead>
            <tbody>
              {timetable.courses.map((c) => (
                <CourseRow key={c.course} course={c} />
              ))}
            </tbody>
          </table>
        </TableWrap>
      </div>
      <School key={JSON.stringify(timetable.rules)} rules={timetable.rules} modes={timetable.modes} admin={admin} />
    </div>
  );
}

function CourseRow({ course: c }: { course: TimetableCourse }) {
  const { t } = useWords();
  const save = useAction(orders.putCourse, { stale: ["timetable"], done: t.common.saved });
  const set = (part: Partial<CourseTimetable>) => save.run(c.course, { ...c.rules, ...part });
  const locked = !c.may_edit || save.busy;
  return (
    <tr>
      <td>
        <strong>{c.name}</strong>
      </td>
      <td>
        <input type="checkbox" aria-label={`${c.name}: ${t.timetable.starts}`} checked={c.rules.starts} disabled={locked} onChange={(e) => set({ starts: e.target.checked })} />
      </td>
      <td>
        <select aria-label={`${c.name}: ${t.timetable.atEnd}`} value={c.rules.at_end} disabled={locked} onChange={(e) => set({ at_end: e.target.value as LessonEnd })}>
          {ENDS.map((end) => (
            <option key={end} value={end}>
              {t.timetable.ends[end]}
            </option>
          ))}
        </select>
      </td>
      <td>
        <input
          type="number"
          className="narrow"
          aria-label={`${c.name}: ${t.timetable.grace}`}
          min={0}
          max={240}
          key={c.rules.grace_minutes}
          defaultValue={c.rules.grace_minutes}
          disabled={locked}
          onBlur={(e) => {
            const grace_minutes = e.target.valueAsNumber;
            if (e.target.validity.valid && !Number.isNaN(grace_minutes) && grace_minutes !== c.rules.grace_minutes) set({ grace_minutes });
          }}
        />
      </td>
    </tr>
  );
}

type Numbers = Exclude<keyof TimetableRules, "zone" | "acts" | "class_mode" | "other_mode">;

/** A mode that is chosen does nothing while plans are not carried out by themselves. */
function OnlyWhenOrdered() {
  const { t } = useWords();
  const now = useAllocation();
  if (!now.data || now.data.settings.automatic) return null;
  return (
    <Notice tone="warn">
      {t.timetable.onlyWhenOrdered} <a href="#/allocation">{t.allocation.title}</a>
    </Notice>
  );
}

function School({ rules, modes, admin }: { rules: TimetableRules; modes: string[]; admin: boolean }) {
  const { t } = useWords();
  const [draft, setDraft] = useState(rules);
  const save = useAction(orders.setRules, { stale: ["timetable"], done: t.common.saved });
  const set = (part: Partial<TimetableRules>) => setDraft({ ...draft, ...part });
  const number = (key: Numbers, min: number, max: number) => (
    <TextField label={t.timetable.rule[key]} type="number" required min={min} max={max} disabled={!admin} value={Number.isNaN(draft[key]) ? "" : draft[key]} onChange={(e) => set({ [key]: e.target.valueAsNumber })} />
  );
  const mode = (key: "class_mode" | "other_mode") => (
    <Select label={t.timetable.rule[key]} value={draft[key]} disabled={!admin} onChange={(e) => set({ [key]: e.target.value })}>
      {modes.map((m) => (
        <option key={m} value={m}>
          {t.timetable.mode(m)}
        </option>
      ))}
    </Select>
  );
  return (
    <form
      className="panel form"
      aria-labelledby="school-rules"
      onSubmit={(event) => {
        event.preventDefault();
        save.run(Object.fromEntries(Object.entries(draft).filter(([key, value]) => value !== rules[key as keyof TimetableRules])));
      }}
    >
      <h2 id="school-rules">{t.timetable.schoolRules}</h2>
      <CheckBox label={t.timetable.rule.acts} hint={t.timetable.rule.actsHint} checked={draft.acts} disabled={!admin} onChange={(e) => set({ acts: e.target.checked })} />
      <TextField label={t.timetable.rule.zone} required value={draft.zone} disabled={!admin} onChange={(e) => set({ zone: e.target.value })} spellCheck={false} placeholder="Asia/Taipei" />
      <h3>{t.timetable.beforeBell}</h3>
      <p className="muted">{t.timetable.beforeBellLead}</p>
      {number("lead_floor_minutes", 0, 240)}
      {number("lead_ceiling_minutes", 0, 240)}
      {number("lead_percent", 100, 1000)}
      {number("hosts_before_minutes", 0, 240)}
      <h3>{t.timetable.classHours}</h3>
      <p className="muted">{t.timetable.classHoursLead}</p>
      {number("class_before_minutes", 0, 720)}
      {number("class_after_minutes", 0, 720)}
      {number("class_bridge_minutes", 0, 1440)}
      {mode("class_mode")}
      {mode("other_mode")}
      {admin && (draft.class_mode !== "none" || draft.other_mode !== "none") && <OnlyWhenOrdered />}
      {admin && (
        <div>
          <Button type="submit" look="primary" busy={save.busy}>
            {t.common.save}
          </Button>
        </div>
      )}
    </form>
  );
}
