// The frame: for staff a board at the side, for students a strip at the top.
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState, type ReactNode } from "react";
import { session } from "../api/actions";
import { useOperations } from "../api/queries";
import { useWords } from "../i18n";
import { go, useRoute } from "../router";
import { Icon, Mark, type IconName } from "../ui/icons";
import { useAction } from "../ui/toast";
import { forgetAll, useSession } from "./session";

interface Entry {
  to: string;
  icon: IconName;
  label: string;
  count?: number;
}

function NavLink({ to, icon, label, count }: Entry) {
  const route = useRoute();
  const here = to === "/" ? route === "/" : route === to || route.startsWith(`${to}/`);
  return (
    <a href={`#${to}`} aria-current={here ? "page" : undefined} className="nav-link">
      <Icon name={icon} />
      <span>{label}</span>
      {count ? <span className="count">{count}</span> : null}
    </a>
  );
}

function SignOut({ compact }: { compact?: boolean }) {
  const { t } = useWords();
  const client = useQueryClient();
  const out = useAction(session.signOut, {
    onDone: () => {
      go("/", true);
      forgetAll(client);
      void client.resetQueries({ queryKey: ["me"] });
    },
  });
  return (
    <button type="button" className="nav-link" onClick={() => out.run()} disabled={out.busy} title={compact ? t.nav.signOut : undefined}>
      <Icon name="signOut" />
      <span className={compact ? "wide-only" : ""}>{t.nav.signOut}</span>
    </button>
  );
}

function Running({ children }: { children: (running: number) => ReactNode }) {
  const operations = useOperations();
  return <>{children(operations.data?.filter((o) => o.state === "running").length ?? 0)}</>;
}

function StaffNav() {
  const { t } = useWords();
  const { admin } = useSession();
  return (
    <nav aria-label={t.common.main}>
      <NavLink to="/" icon="desktop" label={t.nav.desktops} />
      <h2>{t.nav.teach}</h2>
      <NavLink to="/courses" icon="course" label={t.nav.courses} />
      <NavLink to="/timetable" icon="table" label={t.nav.timetable} />
      <NavLink to="/images" icon="image" label={t.nav.images} />
      <h2>{t.nav.machine}</h2>
      <NavLink to="/overview" icon="overview" label={t.nav.overview} />
      <NavLink to="/hosts" icon="host" label={t.nav.hosts} />
      {admin && <NavLink to="/allocation" icon="chart" label={t.nav.allocation} />}
      <Running>{(running) => <NavLink to="/operations" icon="work" label={t.nav.operations} count={running} />}</Running>
      {admin && (
        <>
          <h2>{t.nav.admin}</h2>
          <NavLink to="/people" icon="people" label={t.nav.people} />
          <NavLink to="/audit" icon="audit" label={t.nav.audit} />
          <NavLink to="/settings" icon="settings" label={t.nav.settings} />
        </>
      )}
    </nav>
  );
}

export function Layout({ children }: { children: ReactNode }) {
  const { t } = useWords();
  const { me, staff, live } = useSession();
  const route = useRoute();
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [route]);
  useEffect(() => {
    if (!open) return;
    const esc = (event: KeyboardEvent) => event.key === "Escape" && setOpen(false);
    window.addEventListener("keydown", esc);
    return () => window.removeEventListener("keydown", esc);
  }, [open]);

  const brand = (
    <a href="#/" className="brand">
      <Mark />
      <span>{me.classroom_name}</span>
    </a>
  );

  return (
    <div className={staff ? "frame staff" : "frame"}>
      <a
        className="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        {t.common.skip}
      </a>
      {staff ? (
        <>
          <header className="strip narrow-only">
            <button type="button" className="icon-button" aria-label={t.common.menu} aria-expanded={open} onClick={() => setOpen(!open)}>
              <Icon name={open ? "close" : "menu"} />
            </button>
            {brand}
          </header>
          {open && <div className="shade" onClick={() => setOpen(false)} aria-hidden="true" />}
          <aside className={`board ${open ? "open" : ""}`}>
            {brand}
            <StaffNav />
            <div className="board-foot">
              <NavLink to="/account" icon="account" label={me.user.name} />
              <SignOut />
            </div>
          </aside>
        </>
      ) : (
        <header className="strip">
          {brand}
          <nav aria-label={t.common.main}>
            <NavLink to="/" icon="desktop" label={t.nav.desktops} />
            <NavLink to="/account" icon="account" label={me.user.name} />
            <SignOut compact />
          </nav>
        </header>
      )}
      <main id="main" tabIndex={-1}>
        {!live && (
          <p className="offline" role="status">
            <span className="spinner" aria-hidden="true" />
            {t.common.unreachable}
          </p>
        )}
        {children}
      </main>
    </div>
  );
}
