// A lesson, new or changed.
import { useState } from "react";
import { timetable as orders } from "../../api/actions";
import type { Lesson, LessonPut, TimetableCourse } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, Segmented, Select, TextField } from "../../ui/controls";
import { FormDialog, useConfirm } from "../../ui/dialog";
import { useAction } from "../../ui/toast";

export const WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] as const;

export function LessonForm({ courses, lesson, onClose }: { courses: TimetableCourse[]; lesson: Lesson | null; onClose: () => void }) {
  const { t } = useWords();
  const confirm = useConfirm();
  const [once, setOnce] = useState<"weekly" | "once">(lesson?.date ? "once" : "weekly");
  const [body, setBody] = useState({
    course: lesson?.course ?? courses[0]?.course ?? "",
    title: lesson?.title ?? "",
    room: lesson?.room ?? "",
    weekday: lesson?.weekday ?? "mon",
    date: lesson?.date ?? "",
    begin: lesson?.begin ?? "08:10",
    end: lesson?.end ?? "10:00",
    every_weeks: lesson?.every_weeks ?? 1,
    from: lesson?.from ?? "",
    until: lesson?.until ?? "",
    zone: lesson?.zone ?? "",
  });
  const set = (part: Partial<typeof body>) => setBody({ ...body, ...part });
  const options = { stale: ["timetable"], done: t.common.saved, onDone: onClose };
  const save = useAction((put: LessonPut) => (lesson ? orders.change(lesson.id, put) : orders.add(put)), options);
  const remove = useAction(orders.remove, { ...options, done: t.timetable.deleted });
  const submit = () =>
    save.run({
      course: body.course,
      title: body.title,
      room: body.room || null,
      weekday: once === "weekly" ? body.weekday : null,
      date: once === "once" ? body.date : null,
      begin: body.begin,
      end: body.end,
      every_weeks: once === "weekly" ? body.every_weeks : null,
      from: (once === "weekly" && body.from) || null,
      until: (once === "weekly" && body.until) || null,
      zone: body.zone || null,
    });
  return (
    <FormDialog title={lesson ? t.timetable.edit : t.timetable.add} onClose={onClose} submit={t.common.save} busy={save.busy} disabled={!body.course} onSubmit={submit}>
      <Select label={t.timetable.course} value={body.course} onChange={(e) => set({ course: e.target.value })}>
        {courses.map((c) => (
          <option key={c.course} value={c.course}>
            {c.name}
          </option>
        ))}
      </Select>
      <Segmented
        label={t.timetable.rhythm}
        value={once}
        onChange={setOnce}
        options={[
          { value: "weekly", label: t.timetable.weekly },
          { value: "once", label: t.timetable.once },
        ]}
      />
      {once === "weekly" ? (
        <Select label={t.timetable.weekday} value={body.weekday} onChange={(e) => set({ weekday: e.target.value })}>
          {WEEKDAYS.map((day) => (
            <option key={day} value={day}>
              {t.timetable.weekdays[day]}
            </option>
          ))}
        </Select>
      ) : (
        <TextField label={t.timetable.day} type="date" required value={body.date} onChange={(e) => set({ date: e.target.value })} />
      )}
      <div className="row fields">
        <TextField label={t.timetable.begin} type="time" required value={body.begin} onChange={(e) => set({ begin: e.target.value })} />
        <TextField label={t.timetable.end} type="time" required value={body.end} onChange={(e) => set({ end: e.target.value })} />
      </div>
      <TextField label={t.timetable.room} hint={t.common.optional} maxLength={80} value={body.room} onChange={(e) => set({ room: e.target.value })} />
      <TextField label={t.timetable.lessonTitle} hint={t.common.optional} maxLength={120} value={body.title} onChange={(e) => set({ title: e.target.value })} />
      <details open={body.every_weeks !== 1 || !!body.from || !!body.until || !!body.zone}>
        <summary>{t.common.more}</summary>
        <div className="stack">
          {once === "weekly" && (
            <>
              <TextField label={t.timetable.everyWeeks} hint={t.timetable.everyWeeksHint} type="number" min={1} max={52} required value={Number.isNaN(body.every_weeks) ? "" : body.every_weeks} onChange={(e) => set({ every_weeks: e.target.valueAsNumber })} />
              <div className="row fields">
                <TextField label={t.timetable.from} type="date" required={body.every_weeks > 1} value={body.from} onChange={(e) => set({ from: e.target.value })} />
                <TextField label={t.timetable.untilDay} type="date" value={body.until} onChange={(e) => set({ until: e.target.value })} />
              </div>
            </>
          )}
          <TextField label={t.timetable.otherZone} hint={t.timetable.otherZoneHint} placeholder="Asia/Taipei" value={body.zone} onChange={(e) => set({ zone: e.target.value })} spellCheck={false} />
        </div>
      </details>
      {lesson && (
        <div>
          <Button
            look="danger"
            size="small"
            icon="trash"
            busy={remove.busy}
            onClick={() =>
              void confirm({ title: t.timetable.deleteTitle(lesson.course_name), body: t.timetable.deleteBody, confirm: t.common.delete, danger: true }).then((yes) => {
                if (yes) remove.run(lesson.id);
              })
            }
          >
            {t.common.delete}
          </Button>
        </div>
      )}
    </FormDialog>
  );
}
