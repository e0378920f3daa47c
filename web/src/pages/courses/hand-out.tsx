// One running desktop becomes the start of everybody's.
import { useState } from "react";
import { courses } from "../../api/actions";
import { useRoster } from "../../api/queries";
import type { Course, Desktop } from "../../api/types";
import { useWords } from "../../i18n";
import { useSession } from "../../shell/session";
import { Notice, Select } from "../../ui/controls";
import { FormDialog } from "../../ui/dialog";
import { useAction } from "../../ui/toast";

export function HandOut({ course, desktops, chosen, onClose }: { course: Course; desktops: Desktop[]; chosen: string[] | null; onClose: () => void }) {
  const { t } = useWords();
  const { me } = useSession();
  const roster = useRoster(course.id);
  // Only a teacher's desktop is handed out; a student's is that student's own.
  const teachers = new Set(roster.data?.filter((m) => m.role === "teacher").map((m) => m.user));
  const running = desktops.filter((d) => d.phase === "running" && teachers.has(d.user));
  const own = running.find((d) => d.user === me.user.id);
  const [chosenSource, setFrom] = useState("");
  const from = chosenSource || own?.id || running[0]?.id || "";
  const source = running.find((d) => d.id === from);
  const users = chosen?.filter((user) => user !== source?.user) ?? null;
  const count = users ? users.length : course.students;
  const handOut = useAction(() => courses.handOut(course.id, from, users), { stale: ["desktops", "operations"], onDone: onClose });
  return (
    <FormDialog title={t.courses.handOutTitle} onClose={onClose} submit={t.courses.handOutConfirm(count)} danger busy={handOut.busy} disabled={!source || count === 0} onSubmit={() => handOut.run()}>
      <p>{t.courses.handOutBody}</p>
      {roster.data === undefined ? null : running.length === 0 ? (
        <Notice tone="warn">{t.courses.handOutNone}</Notice>
      ) : (
        <Select label={t.courses.handOutWhich} value={from} onChange={(e) => setFrom(e.target.value)}>
          {running.map((d) => (
            <option key={d.id} value={d.id}>
              {d.user === me.user.id ? `${d.user_name} (${t.people.you})` : d.user_name}
            </option>
          ))}
        </Select>
      )}
    </FormDialog>
  );
}
