// One's own account.
import { useState } from "react";
import { session } from "../../api/actions";
import { useSessions } from "../../api/queries";
import { useWords } from "../../i18n";
import { clientName } from "../../lib/client-name";
import { ago } from "../../lib/format";
import { LanguageSwitch, ThemeSwitch } from "../../shell/looks";
import { useSession } from "../../shell/session";
import { Button, Tag, TextField } from "../../ui/controls";
import { Loaded, PageHead, useNow } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

export function AccountPage() {
  const { t, locale } = useWords();
  const { me } = useSession();
  const now = useNow(30_000);
  const sessions = useSessions();
  const revoke = useAction(session.revoke, { stale: ["sessions"] });
  return (
    <>
      <PageHead title={t.nav.account} lead={`${me.user.name} · ${me.user.login} · ${t.role[me.user.role]}`} />
      <div className="columns two">
        <div className="stack">
          <Password />
          <section className="panel">
            <h2>{t.account.looks}</h2>
            <div className="row wrap">
              <LanguageSwitch />
              <ThemeSwitch />
            </div>
          </section>
        </div>
        <section className="panel" aria-labelledby="sessions-title">
          <h2 id="sessions-title">{t.account.sessions}</h2>
          <Loaded query={sessions}>
            {(list) => (
              <ul className="plain-list">
                {list.map((s) => (
                  <li key={s.id} className="row between wrap">
                    <span>
                      <strong className="client">{clientName(s.client)}</strong> {s.current && <Tag>{t.account.current}</Tag>}
                      <span className="muted small block">
                        {s.address} · {t.account.lastSeen(ago(s.last_seen, now, locale))}
                      </span>
                    </span>
                    {!s.current && (
                      <Button size="small" busy={revoke.busy} onClick={() => revoke.run(s.id)}>
                        {t.account.revoke}
                      </Button>
                    )}
                  </li>
                ))}
              </ul>
            )}
          </Loaded>
        </section>
      </div>
    </>
  );
}

function Password() {
  const { t } = useWords();
  const { me } = useSession();
  const [old, setOld] = useState("");
  const [next, setNext] = useState("");
  const change = useAction(session.setPassword, {
    stale: ["sessions", "me"],
    done: t.account.changed,
    onDone: () => {
      setOld("");
      setNext("");
    },
  });
  return (
    <form
      className="panel form"
      onSubmit={(event) => {
        event.preventDefault();
        change.run(old || null, next);
      }}
    >
      <h2>{t.account.password}</h2>
      <input type="text" name="username" autoComplete="username" value={me.user.login} readOnly hidden />
      <TextField label={t.account.old} type="password" autoComplete="current-password" value={old} onChange={(e) => setOld(e.target.value)} hint={t.account.oldHint} />
      <TextField label={t.account.new} type="password" autoComplete="new-password" minLength={8} required value={next} onChange={(e) => setNext(e.target.value)} hint={t.welcome.rule} />
      <div>
        <Button type="submit" look="primary" busy={change.busy}>
          {t.account.change}
        </Button>
      </div>
    </form>
  );
}
