// The timetable: the week, its lessons, the school's days, and what it does by itself.
import { useState } from "react";
import { useTimetable, useTimetableNow } from "../../api/queries";
import type { Lesson } from "../../api/types";
import { useWords } from "../../i18n";
import { momentText } from "../../lib/week";
import { go } from "../../router";
import { useSession } from "../../shell/session";
import { Badge, Button, Segmented } from "../../ui/controls";
import { Loaded, PageHead } from "../../ui/pieces";
import { DaysPanel } from "./days";
import { ImportFile } from "./import-file";
import { LessonForm } from "./lesson-form";
import { LessonsPanel } from "./lessons";
import { RulesPanel } from "./rules";
import { WeekView } from "./week";

export type TimetableTab = "week" | "lessons" | "days" | "rules";

export function TimetablePage({ tab }: { tab: TimetableTab }) {
  const { t } = useWords();
  const { admin } = useSession();
  const timetable = useTimetable();
  const [editing, setEditing] = useState<Lesson | "new" | null>(null);
  const [importing, setImporting] = useState(false);
  const mine = timetable.data?.courses.filter((c) => c.may_edit) ?? [];
  return (
    <>
      <PageHead title={t.timetable.title} lead={t.timetable.lead}>
        {mine.length > 0 && (
          <>
            <Button icon="upload" onClick={() => setImporting(true)}>
              {t.timetable.import}
            </Button>
            <Button look="primary" icon="plus" onClick={() => setEditing("new")}>
              {t.timetable.add}
            </Button>
          </>
        )}
      </PageHead>
      {timetable.data && <Now zone={timetable.data.rules.zone} />}
      <div className="timetable-tabs">
        <Segmented<TimetableTab>
          label={t.timetable.view}
          value={tab}
          onChange={(to) => go(to === "week" ? "/timetable" : `/timetable/${to}`)}
          options={(["week", "lessons", "days", "rules"] as const).map((value) => ({ value, label: t.timetable.tabs[value] }))}
        />
      </div>
      <Loaded query={timetable}>
        {(data) =>
          tab === "week" ? (
            <WeekView timetable={data} onEdit={setEditing} />
          ) : tab === "lessons" ? (
            <LessonsPanel timetable={data} onEdit={setEditing} />
          ) : tab === "days" ? (
            <DaysPanel days={data.days} admin={admin} />
          ) : (
            <RulesPanel timetable={data} admin={admin} />
          )
        }
      </Loaded>
      {editing && timetable.data && <LessonForm courses={mine} lesson={editing === "new" ? null : editing} onClose={() => setEditing(null)} />}
      {importing && timetable.data && <ImportFile courses={mine} admin={admin} onClose={() => setImporting(false)} />}
    </>
  );
}

/** Which hours it is, and what that means for the hosts. */
function Now({ zone }: { zone: string }) {
  const { t, locale } = useWords();
  const now = useTimetableNow();
  if (!now.data) return null;
  const { hours, until, mode, seats_wanted, running } = now.data;
  return (
    <p className="timetable-now">
      <Badge tone={hours === "class" ? "good" : "idle"}>{t.timetable.hours[hours]}</Badge>
      {until ? <span>{t.timetable.until(momentText(until, locale, zone))}</span> : null}
      <span>{t.timetable.modeNow(t.timetable.mode(mode))}</span>
      {running.length > 0 && <span>{t.timetable.running(running.map((o) => o.course_name).join(t.timetable.comma))}</span>}
      {seats_wanted > 0 && <span>{t.timetable.seats(seats_wanted)}</span>}
    </p>
  );
}
