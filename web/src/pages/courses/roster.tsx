// Who is in the course.
import { useDeferredValue, useState } from "react";
import { courses } from "../../api/actions";
import { useRoster, useUsers } from "../../api/queries";
import type { Course, CourseRole, Member } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, Empty, IconButton, TextField } from "../../ui/controls";
import { Dialog, useConfirm } from "../../ui/dialog";
import { Loaded, TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { ImportRoster } from "./import-roster";

const STALE = ["courses", "desktops", "users"];

export function Roster({ course }: { course: Course }) {
  const { t } = useWords();
  const roster = useRoster(course.id);
  const [dialog, setDialog] = useState<"import" | "add" | null>(null);
  return (
    <div className="stack">
      <div className="row wrap">
        <Button look="primary" icon="file" onClick={() => setDialog("import")}>
          {t.roster.import}
        </Button>
        <Button icon="plus" onClick={() => setDialog("add")}>
          {t.roster.addPerson}
        </Button>
      </div>
      <Loaded query={roster}>
        {(members) =>
          members.length === 0 ? (
            <Empty icon="people" title={t.roster.empty} />
          ) : (
            <TableWrap label={t.courses.tabs.roster}>
              <table>
                <thead>
                  <tr>
                    <th>{t.common.name}</th>
                    <th>{t.roster.login}</th>
                    <th>{t.roster.role}</th>
                    <th>
                      <span className="sr-only">{t.common.actions}</span>
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {[...members]
                    .sort((a, b) => (a.role === b.role ? a.login.localeCompare(b.login, undefined, { numeric: true }) : a.role === "teacher" ? -1 : 1))
                    .map((member) => (
                      <MemberRow key={member.user} course={course} member={member} />
                    ))}
                </tbody>
              </table>
            </TableWrap>
          )
        }
      </Loaded>
      {dialog === "import" && <ImportRoster course={course} onClose={() => setDialog(null)} />}
      {dialog === "add" && <AddPerson course={course} members={roster.data ?? []} onClose={() => setDialog(null)} />}
    </div>
  );
}

function MemberRow({ course, member }: { course: Course; member: Member }) {
  const { t } = useWords();
  const confirm = useConfirm();
  const put = useAction((role: CourseRole) => courses.putMember(course.id, member.user, role), { stale: STALE });
  const remove = useAction(() => courses.removeMember(course.id, member.user), { stale: STALE });
  return (
    <tr>
      <td>
        <strong>{member.name}</strong>
      </td>
      <td className="muted">{member.login}</td>
      <td>
        <select aria-label={t.roster.setRole(member.name)} value={member.role} disabled={put.busy} onChange={(e) => put.run(e.target.value as CourseRole)}>
          <option value="student">{t.role.student}</option>
          <option value="teacher">{t.role.teacher}</option>
        </select>
      </td>
      <td>
        <span className="row end">
          <IconButton
            icon="trash"
            label={t.roster.remove(member.name)}
            busy={remove.busy}
            onClick={() =>
              void confirm({ title: t.roster.removeTitle(member.name), body: t.roster.removeLoses, confirm: t.common.remove, danger: true }).then((yes) => {
                if (yes) remove.run();
              })
            }
          />
        </span>
      </td>
    </tr>
  );
}

function AddPerson({ course, members, onClose }: { course: Course; members: Member[]; onClose: () => void }) {
  const { t } = useWords();
  const [search, setSearch] = useState("");
  const users = useUsers({ search: useDeferredValue(search.trim()) });
  const put = useAction((user: string, role: CourseRole) => courses.putMember(course.id, user, role), { stale: STALE });
  const inCourse = new Set(members.map((m) => m.user));
  const found = (users.data ?? []).filter((u) => !inCourse.has(u.id)).slice(0, 30);
  return (
    <Dialog title={t.roster.addPerson} onClose={onClose}>
      <div className="dialog-body">
        <TextField label={t.roster.who} value={search} onChange={(e) => setSearch(e.target.value)} type="search" autoFocus hint={t.roster.noUser} />
        <ul className="people-list" aria-label={t.roster.found}>
          {found.map((user) => (
            <li key={user.id}>
              <span>
                <strong>{user.name}</strong> <span className="muted">{user.login}</span>
              </span>
              <span className="row">
                <Button size="small" busy={put.busy} onClick={() => put.run(user.id, "student")}>
                  {t.roster.asStudent}
                </Button>
                {user.role !== "student" && (
                  <Button size="small" look="quiet" busy={put.busy} onClick={() => put.run(user.id, "teacher")}>
                    {t.roster.asTeacher}
                  </Button>
                )}
              </span>
            </li>
          ))}
        </ul>
        {users.data && found.length === 0 && <p className="muted">{t.roster.nobody}</p>}
      </div>
      <footer>
        <Button onClick={onClose}>{t.common.close}</Button>
      </footer>
    </Dialog>
  );
}
