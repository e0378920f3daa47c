// One week, day by day, for all courses and rooms or one of them.
import { useState } from "react";
import { useWeek } from "../../api/queries";
import type { Lesson, Occurrence, Timetable, Week } from "../../api/types";
import { useWords } from "../../i18n";
import { boxes, dayText, hours, monday, shift } from "../../lib/week";
import { Badge, Button, IconButton, Select } from "../../ui/controls";
import { Icon } from "../../ui/icons";
import { Loaded } from "../../ui/pieces";
import { OccurrenceDialog } from "./occurrence";

export function WeekView({ timetable, onEdit }: { timetable: Timetable; onEdit: (lesson: Lesson) => void }) {
  const { t, locale } = useWords();
  const [first, setFirst] = useState<string | null>(null);
  const [course, setCourse] = useState("");
  const [room, setRoom] = useState("");
  const [open, setOpen] = useState<Occurrence | null>(null);
  const week = useWeek({ first, course: course || null, room: room || null });
  const shown = week.data?.days[0]?.date;
  const lesson = open ? timetable.lessons.find((l) => l.id === open.lesson) : undefined;
  const turn = (days: number) => shown && setFirst(monday(shift(shown, days)));
  return (
    <div className="panel">
      <div className="week-bar">
        <div className="row">
          <IconButton icon="back" label={t.timetable.earlier} onClick={() => turn(-7)} />
          <Button size="small" onClick={() => setFirst(null)}>
            {t.timetable.thisWeek}
          </Button>
          <IconButton icon="back" className="forward" label={t.timetable.later} onClick={() => turn(7)} />
          <strong aria-live="polite">{shown ? t.timetable.weekOf(dayText(shown, locale, "long")) : ""}</strong>
        </div>
        <div className="row wrap">
          <Select label={t.timetable.course} value={course} onChange={(e) => setCourse(e.target.value)}>
            <option value="">{t.common.all}</option>
            {timetable.courses.map((c) => (
              <option key={c.course} value={c.course}>
                {c.name}
              </option>
            ))}
          </Select>
          <Select label={t.timetable.room} value={room} onChange={(e) => setRoom(e.target.value)}>
            <option value="">{t.common.all}</option>
            {week.data?.rooms.map((r) => (
              <option key={r} value={r}>
                {r}
              </option>
            ))}
          </Select>
        </div>
      </div>
      <Loaded query={week}>{(data) => <Grid week={data} onOpen={setOpen} />}</Loaded>
      {week.data && <p className="muted small">{t.timetable.zoneIs(week.data.zone)}</p>}
      {open && <OccurrenceDialog occurrence={open} lesson={lesson} onEdit={onEdit} onClose={() => setOpen(null)} />}
    </div>
  );
}

const HOUR = 46;

function Grid({ week, onOpen }: { week: Week; onOpen: (o: Occurrence) => void }) {
  const { t, locale } = useWords();
  const days = boxes(week.days, week.occurrences);
  const { first, last } = hours(days);
  const top = (minute: number) => ((minute - first * 60) / 60) * HOUR;
  const height = (last - first) * HOUR;
  const today = new Intl.DateTimeFormat("en-CA", { timeZone: week.zone }).format(Date.now());
  return (
    <div className="week" tabIndex={0} role="region" aria-label={t.timetable.tabs.week}>
      <div className="week-hours" aria-hidden="true">
        <div className="week-head" />
        <div style={{ height }}>
          {Array.from({ length: last - first }, (_, i) => (
            <span key={i} style={{ top: i * HOUR }}>
              {String(first + i).padStart(2, "0")}:00
            </span>
          ))}
        </div>
      </div>
      {days.map(({ day, boxes }) => (
        <section key={day.date} className={`week-day ${day.school ? "" : "off"}`} aria-label={dayText(day.date, locale, "long")}>
          <div className={`week-head ${day.date === today ? "today" : ""}`}>
            <strong>{dayText(day.date, locale)}</strong>
            <span className="small" title={day.holiday ?? undefined}>
              {day.holiday ?? (day.school ? "" : t.timetable.noTerm)}
            </span>
          </div>
          <ol className="week-body" style={{ height, backgroundSize: `100% ${HOUR}px` }}>
            {boxes.map(({ occurrence: o, begin, end, lane, lanes }) => (
              <li key={`${o.lesson}/${o.date}/${o.begin}`} style={{ top: top(begin), height: Math.max(26, top(end) - top(begin) - 2), left: `${(lane / lanes) * 100}%`, width: `calc(${100 / lanes}% - 3px)` }}>
                <button type="button" className={`lesson state-${o.state} ${o.clashes ? "clash" : ""}`} onClick={() => onOpen(o)}>
                  <strong>{o.course_name}</strong>
                  <span>
                    {o.begin_clock}–{o.end_clock}
                  </span>
                  <span>{[o.room, o.title].filter(Boolean).join(" · ")}</span>
                  <span className="lesson-flags">
                    {o.moved && <Badge tone="info">{t.timetable.moved}</Badge>}
                    {o.clashes && (
                      <Badge tone="warn">
                        <Icon name="warning" size={13} /> {t.timetable.clash}
                      </Badge>
                    )}
                  </span>
                </button>
              </li>
            ))}
          </ol>
        </section>
      ))}
    </div>
  );
}
