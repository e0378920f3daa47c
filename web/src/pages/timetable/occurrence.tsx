// One lesson on one day: how far it is, and what can be different about it.
import { useState } from "react";
import { timetable as orders } from "../../api/actions";
import type { Lesson, Occurrence } from "../../api/types";
import { useWords } from "../../i18n";
import { dayText } from "../../lib/week";
import { Badge, Button, Notice, TextField } from "../../ui/controls";
import { Dialog, FormDialog } from "../../ui/dialog";
import { Facts } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

export const STATE_TONES = { planned: "idle", preparing: "busy", on: "good", ending: "busy", done: "idle", missed: "warn" } as const;

export function OccurrenceDialog({ occurrence: o, lesson, onEdit, onClose }: { occurrence: Occurrence; lesson?: Lesson; onEdit: (lesson: Lesson) => void; onClose: () => void }) {
  const { t, locale } = useWords();
  const [moving, setMoving] = useState(false);
  const options = { stale: ["timetable"], done: t.common.saved, onDone: onClose };
  const except = useAction(orders.except, options);
  const restore = useAction(orders.restore, options);
  const weekly = lesson?.may_edit && lesson.weekday;
  if (moving && lesson) return <Move occurrence={o} lesson={lesson} onClose={onClose} />;
  return (
    <Dialog title={o.course_name} onClose={onClose}>
      <div className="dialog-body">
        <p className="row wrap">
          <Badge tone={STATE_TONES[o.state]}>{t.timetable.state[o.state]}</Badge>
          {o.moved && <Badge tone="info">{t.timetable.movedFrom(dayText(o.date, locale))}</Badge>}
        </p>
        <Facts
          items={[
            [t.timetable.day, dayText(o.day, locale, "long")],
            [t.timetable.time, `${o.begin_clock}–${o.end_clock}`],
            o.room ? [t.timetable.room, o.room] : null,
            o.title ? [t.timetable.lessonTitle, o.title] : null,
          ]}
        />
        {o.note && <Notice tone="warn">{t.say(o.note)}</Notice>}
        {o.clashes && <Notice tone="warn">{t.timetable.clashHint}</Notice>}
      </div>
      <footer className="wrap">
        {weekly && o.moved && (
          <Button busy={restore.busy} onClick={() => restore.run(o.lesson, o.date)}>
            {t.timetable.asAlways}
          </Button>
        )}
        {weekly && (
          <>
            <Button look="danger" busy={except.busy} onClick={() => except.run(o.lesson, o.date, { cancelled: true })}>
              {t.timetable.cancelOnce}
            </Button>
            <Button onClick={() => setMoving(true)}>{t.timetable.moveOnce}</Button>
          </>
        )}
        {lesson?.may_edit && (
          <Button
            look="primary"
            onClick={() => {
              onClose();
              onEdit(lesson);
            }}
          >
            {t.timetable.edit}
          </Button>
        )}
        {!lesson?.may_edit && <Button onClick={onClose}>{t.common.close}</Button>}
      </footer>
    </Dialog>
  );
}

function Move({ occurrence: o, lesson, onClose }: { occurrence: Occurrence; lesson: Lesson; onClose: () => void }) {
  const { t, locale } = useWords();
  const [body, setBody] = useState({ to_date: o.day, begin: o.begin_clock, end: o.end_clock, room: o.room ?? "" });
  const save = useAction(orders.except, { stale: ["timetable"], done: t.common.saved, onDone: onClose });
  return (
    <FormDialog title={t.timetable.moveTitle(dayText(o.date, locale))} onClose={onClose} submit={t.timetable.moveOnce} busy={save.busy} onSubmit={() => save.run(o.lesson, o.date, { ...body, cancelled: false, room: body.room && body.room !== lesson.room ? body.room : null })}>
      <TextField label={t.timetable.day} type="date" required value={body.to_date} onChange={(e) => setBody({ ...body, to_date: e.target.value })} />
      <div className="row fields">
        <TextField label={t.timetable.begin} type="time" required value={body.begin} onChange={(e) => setBody({ ...body, begin: e.target.value })} />
        <TextField label={t.timetable.end} type="time" required value={body.end} onChange={(e) => setBody({ ...body, end: e.target.value })} />
      </div>
      <TextField label={t.timetable.room} maxLength={80} value={body.room} onChange={(e) => setBody({ ...body, room: e.target.value })} />
    </FormDialog>
  );
}
