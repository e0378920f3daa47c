// Everybody who can sign in. For administrators.
import { useDeferredValue, useState } from "react";
import { users as orders } from "../../api/actions";
import { useUsers } from "../../api/queries";
import type { OneTimeLink, Role, User } from "../../api/types";
import { useWords } from "../../i18n";
import { dateTime, day } from "../../lib/format";
import { absolute } from "../../lib/roster";
import { useSession } from "../../shell/session";
import { Badge, Button, Empty, Select, TextField } from "../../ui/controls";
import { Dialog, FormDialog, useConfirm } from "../../ui/dialog";
import { CopyButton, Loaded, Menu, PageHead, TableWrap } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

const STALE = ["users", "courses"];
const ROLES: Role[] = ["student", "teacher", "admin"];

export function PeoplePage() {
  const { t } = useWords();
  const [search, setSearch] = useState("");
  const [role, setRole] = useState<Role | "">("");
  const [making, setMaking] = useState(false);
  const [link, setLink] = useState<{ user: User; link: OneTimeLink } | null>(null);
  const users = useUsers({ search: useDeferredValue(search.trim()), role });
  return (
    <>
      <PageHead title={t.people.title} lead={t.people.lead}>
        <Button look="primary" icon="plus" onClick={() => setMaking(true)}>
          {t.people.new}
        </Button>
      </PageHead>
      <div className="row fields filters">
        <TextField label={t.common.search} type="search" placeholder={t.people.searchHint} value={search} onChange={(e) => setSearch(e.target.value)} />
        <Select label={t.people.role} value={role} onChange={(e) => setRole(e.target.value as Role | "")}>
          <option value="">{t.people.allRoles}</option>
          {ROLES.map((r) => (
            <option key={r} value={r}>
              {t.role[r]}
            </option>
          ))}
        </Select>
      </div>
      <Loaded query={users}>
        {(list) =>
          list.length === 0 ? (
            <Empty icon="people" title={t.people.none} />
          ) : (
            <TableWrap label={t.people.title}>
              <table>
                <thead>
                  <tr>
                    <th>{t.common.name}</th>
                    <th>{t.people.login}</th>
                    <th>{t.people.role}</th>
                    <th>{t.people.state}</th>
                    <th>{t.people.since}</th>
                    <th>
                      <span className="sr-only">{t.common.actions}</span>
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {list.map((user) => (
                    <Person key={user.id} user={user} onLink={(made) => setLink({ user, link: made })} />
                  ))}
                </tbody>
              </table>
            </TableWrap>
          )
        }
      </Loaded>
      {making && <NewPerson onClose={() => setMaking(false)} onLink={(user, made) => setLink({ user, link: made })} />}
      {link && <LinkDialog {...link} onClose={() => setLink(null)} />}
    </>
  );
}

function Person({ user, onLink }: { user: User; onLink: (link: OneTimeLink) => void }) {
  const { t, locale } = useWords();
  const { me } = useSession();
  const confirm = useConfirm();
  const [renaming, setRenaming] = useState(false);
  const self = user.id === me.user.id;
  const change = useAction(orders.change, { stale: STALE });
  const link = useAction(() => orders.oneTimeLink(user.id), { onDone: onLink });
  const remove = useAction(() => orders.remove(user.id), { stale: STALE });
  return (
    <tr className={user.disabled ? "dim" : ""}>
      <td>
        <strong>{user.name}</strong> {self && <span className="muted">({t.people.you})</span>}
      </td>
      <td className="muted">{user.login}</td>
      <td>
        <select aria-label={t.people.changeRole(user.name)} value={user.role} disabled={self || change.busy} onChange={(e) => change.run(user.id, { role: e.target.value as Role })}>
          {ROLES.map((r) => (
            <option key={r} value={r}>
              {t.role[r]}
            </option>
          ))}
        </select>
      </td>
      <td>{user.disabled ? <Badge tone="bad">{t.people.disabled}</Badge> : user.has_password ? <Badge tone="good">{t.people.active}</Badge> : <Badge tone="warn">{t.people.noPassword}</Badge>}</td>
      <td className="muted num nowrap">{day(user.created, locale)}</td>
      <td>
        <span className="row end">
          <Button size="small" icon="link" busy={link.busy} disabled={user.disabled} onClick={() => link.run()}>
            {t.people.link}
          </Button>
          <Menu
            small
            label={`${t.common.actions}: ${user.name}`}
            items={[
              { label: t.people.rename, icon: "settings", onSelect: () => setRenaming(true) },
              user.disabled
                ? { label: t.people.enable, icon: "check", onSelect: () => change.run(user.id, { disabled: false }) }
                : {
                    label: t.people.disable,
                    icon: "stop",
                    disabled: self,
                    onSelect: () =>
                      void confirm({ title: t.people.disableTitle(user.name), body: t.people.disableBody, confirm: t.people.disable, danger: true }).then((yes) => {
                        if (yes) change.run(user.id, { disabled: true });
                      }),
                  },
              {
                label: t.common.delete,
                icon: "trash",
                danger: true,
                disabled: self,
                onSelect: () =>
                  void confirm({ title: t.people.deleteTitle(user.name), body: t.people.deleteLoses, confirm: t.common.delete, danger: true }).then((yes) => {
                    if (yes) remove.run();
                  }),
              },
            ]}
          />
        </span>
        {renaming && <Rename user={user} onClose={() => setRenaming(false)} />}
      </td>
    </tr>
  );
}

function Rename({ user, onClose }: { user: User; onClose: () => void }) {
  const { t } = useWords();
  const [name, setName] = useState(user.name);
  const change = useAction(orders.change, { stale: STALE, onDone: onClose });
  return (
    <FormDialog title={t.people.rename} onClose={onClose} submit={t.common.save} busy={change.busy} onSubmit={() => change.run(user.id, { name: name.trim() })}>
      <TextField label={t.common.name} value={name} onChange={(e) => setName(e.target.value)} required maxLength={80} autoFocus />
    </FormDialog>
  );
}

function NewPerson({ onClose, onLink }: { onClose: () => void; onLink: (user: User, link: OneTimeLink) => void }) {
  const { t } = useWords();
  const [login, setLogin] = useState("");
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("student");
  const [password, setPassword] = useState("");
  const create = useAction(
    async () => {
      const user = await orders.create({ login: login.trim(), name: name.trim() || login.trim(), role, password: password || null });
      return { user, link: password ? null : await orders.oneTimeLink(user.id) };
    },
    {
      stale: STALE,
      done: t.people.created,
      onDone: ({ user, link }) => {
        onClose();
        if (link) onLink(user, link);
      },
    },
  );
  return (
    <FormDialog title={t.people.new} onClose={onClose} submit={t.common.create} busy={create.busy} onSubmit={() => create.run()}>
      <TextField label={t.people.login} value={login} onChange={(e) => setLogin(e.target.value)} required maxLength={64} autoFocus autoCapitalize="none" spellCheck={false} />
      <TextField label={t.common.name} value={name} onChange={(e) => setName(e.target.value)} maxLength={80} />
      <Select label={t.people.role} value={role} onChange={(e) => setRole(e.target.value as Role)}>
        {ROLES.map((r) => (
          <option key={r} value={r}>
            {t.role[r]}
          </option>
        ))}
      </Select>
      <TextField label={`${t.people.password} (${t.common.optional})`} type="password" minLength={8} value={password} onChange={(e) => setPassword(e.target.value)} hint={t.people.passwordHint} autoComplete="new-password" />
    </FormDialog>
  );
}

function LinkDialog({ user, link, onClose }: { user: User; link: OneTimeLink; onClose: () => void }) {
  const { t, locale } = useWords();
  const address = absolute(link.path, window.location.origin);
  return (
    <Dialog title={t.people.linkTitle(user.name)} onClose={onClose}>
      <div className="dialog-body printable">
        <p>{t.people.linkBody}</p>
        <pre className="code">{address}</pre>
        <p className="hint">{t.people.linkUntil(dateTime(link.expires, locale))}</p>
      </div>
      <footer>
        <CopyButton text={address} look="primary" size="normal" />
        <Button onClick={() => window.print()}>{t.common.print}</Button>
        <Button onClick={onClose}>{t.common.close}</Button>
      </footer>
    </Dialog>
  );
}
