// Which page a route shows, and to whom.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { Component, lazy, Suspense, useEffect, type ReactNode } from "react";
import { ApiError, whenSignedOut } from "./api/client";
import { useMe } from "./api/queries";
import { LanguageProvider, useWords } from "./i18n";
import { AccountPage } from "./pages/account/account";
import { AllocationPage } from "./pages/allocation/allocation";
import { AuditPage } from "./pages/audit/audit";
import { CoursePage } from "./pages/courses/course";
import { CoursesPage } from "./pages/courses/courses";
import { HomePage } from "./pages/desktops/home";
import { HostsPage } from "./pages/hosts/hosts";
import { ImagePage } from "./pages/images/image";
import { ImagesPage } from "./pages/images/images";
import { OperationsPage } from "./pages/operations/operations";
import { OverviewPage } from "./pages/overview/overview";
import { PeoplePage } from "./pages/people/people";
import { SettingsPage } from "./pages/settings/settings";
import { TimetablePage } from "./pages/timetable/timetable";
import { SignInPage } from "./pages/sign-in/sign-in";
import { WelcomePage } from "./pages/sign-in/welcome";
import { match, useRoute } from "./router";
import { Layout } from "./shell/layout";
import { SessionProvider, useSession } from "./shell/session";
import { Button, Empty, LinkButton } from "./ui/controls";
import { ConfirmProvider } from "./ui/dialog";
import { PageHead } from "./ui/pieces";
import { errorText, ToastProvider } from "./ui/toast";

// noVNC is half of the page's weight and only the console needs it.
const DesktopConsolePage = lazy(() => import("./pages/console/desktop-console").then((m) => ({ default: m.DesktopConsolePage })));
const DraftConsolePage = lazy(() => import("./pages/console/draft-console").then((m) => ({ default: m.DraftConsolePage })));

type Who = "all" | "staff" | "admin";
type Page = [pattern: string, who: Who, title: (t: ReturnType<typeof useWords>["t"]) => string, show: (p: Record<string, string>) => ReactNode];

const pages: Page[] = [
  ["/", "all", (t) => t.nav.desktops, () => <HomePage />],
  ["/account", "all", (t) => t.nav.account, () => <AccountPage />],
  ["/overview", "staff", (t) => t.nav.overview, () => <OverviewPage />],
  ["/courses", "staff", (t) => t.nav.courses, () => <CoursesPage />],
  ["/courses/:id", "staff", (t) => t.nav.courses, (p) => <CoursePage key={p.id} id={p.id ?? ""} tab="class" />],
  ["/courses/:id/roster", "staff", (t) => t.nav.courses, (p) => <CoursePage key={p.id} id={p.id ?? ""} tab="roster" />],
  ["/courses/:id/points", "staff", (t) => t.nav.courses, (p) => <CoursePage key={p.id} id={p.id ?? ""} tab="points" />],
  ["/courses/:id/settings", "staff", (t) => t.nav.courses, (p) => <CoursePage key={p.id} id={p.id ?? ""} tab="settings" />],
  ["/timetable", "staff", (t) => t.nav.timetable, () => <TimetablePage tab="week" />],
  ["/timetable/lessons", "staff", (t) => t.nav.timetable, () => <TimetablePage tab="lessons" />],
  ["/timetable/days", "staff", (t) => t.nav.timetable, () => <TimetablePage tab="days" />],
  ["/timetable/rules", "staff", (t) => t.nav.timetable, () => <TimetablePage tab="rules" />],
  ["/images", "staff", (t) => t.nav.images, () => <ImagesPage />],
  ["/images/:id", "staff", (t) => t.nav.images, (p) => <ImagePage key={p.id} id={p.id ?? ""} />],
  ["/hosts", "staff", (t) => t.nav.hosts, () => <HostsPage />],
  ["/operations", "staff", (t) => t.nav.operations, () => <OperationsPage />],
  ["/allocation", "admin", (t) => t.nav.allocation, () => <AllocationPage />],
  ["/people", "admin", (t) => t.nav.people, () => <PeoplePage />],
  ["/audit", "admin", (t) => t.nav.audit, () => <AuditPage />],
  ["/settings", "admin", (t) => t.nav.settings, () => <SettingsPage />],
];

function SignedIn() {
  const route = useRoute();
  const { t } = useWords();
  const { me, staff, admin } = useSession();
  const draft = match("/console/draft/:id", route);
  const desktop = match("/console/:id", route);
  const may = (who: Who) => who === "all" || (who === "staff" && staff) || admin;
  let found: { title: string; node: ReactNode } | null = null;
  for (const [pattern, who, title, show] of pages) {
    const params = match(pattern, route);
    if (params && may(who)) found = { title: title(t), node: show(params) };
  }
  const inConsole = (draft && staff) || desktop;
  const title = found?.title;
  useEffect(() => {
    if (!inConsole) document.title = title ? `${title} · ${me.classroom_name}` : me.classroom_name;
  }, [title, inConsole, me.classroom_name]);
  useEffect(() => {
    // In braces: newer browsers answer a promise, which is no clean-up.
    window.scrollTo(0, 0);
  }, [route]);

  if (draft?.id && staff) return <DraftConsolePage id={draft.id} />;
  if (desktop?.id) return <DesktopConsolePage id={desktop.id} />;
  return (
    <Layout>
      {found?.node ?? (
        <>
          <PageHead title={t.common.notFound} />
          <LinkButton to="/">{t.common.home}</LinkButton>
        </>
      )}
    </Layout>
  );
}

function Gate() {
  const { t } = useWords();
  const route = useRoute();
  const me = useMe();
  const welcome = match("/welcome/:secret", route);
  if (welcome?.secret) return <WelcomePage key={welcome.secret} secret={welcome.secret} />;
  if (me.error instanceof ApiError && me.error.unauthenticated) return <SignInPage />;
  if (me.data) {
    return (
      <SessionProvider key={me.data.session} me={me.data}>
        <SignedIn />
      </SessionProvider>
    );
  }
  return (
    <div className="waiting" role="status">
      {me.error ? (
        <Empty icon="host" title={errorText(me.error, t)} action={<Button onClick={() => void me.refetch()}>{t.common.retry}</Button>} />
      ) : (
        <span className="spinner big" aria-label={t.common.loading} />
      )}
    </div>
  );
}

class Boundary extends Component<{ children: ReactNode; fallback: (error: Error) => ReactNode }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  override render() {
    return this.state.error ? this.props.fallback(this.state.error) : this.props.children;
  }
}

function Guarded({ children }: { children: ReactNode }) {
  const { t } = useWords();
  return (
    <Boundary
      fallback={(error) => (
        <div className="waiting">
          <Empty icon="warning" title={t.common.unexpected} action={<Button look="primary" onClick={() => window.location.reload()}>{t.common.reload}</Button>}>
            {error.message}
          </Empty>
        </div>
      )}
    >
      {children}
    </Boundary>
  );
}

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 1000,
      // An answer that says no will say no again; only silence is worth asking twice.
      retry: (count, error) => error instanceof ApiError && error.unreachable && count < 2,
      retryDelay: (attempt) => Math.min(500 * 2 ** attempt, 4000),
    },
  },
});

// A request that finds the session gone asks who is signed in, which shows the sign-in.
whenSignedOut(() => {
  const me = client.getQueryState(["me"]);
  if (me?.status === "success" && me.fetchStatus === "idle") void client.resetQueries({ queryKey: ["me"] });
});

export function App() {
  return (
    <QueryClientProvider client={client}>
      <LanguageProvider>
        <Guarded>
          <ToastProvider>
            <ConfirmProvider>
              <Suspense fallback={<div className="console" />}>
                <Gate />
              </Suspense>
            </ConfirmProvider>
          </ToastProvider>
        </Guarded>
      </LanguageProvider>
    </QueryClientProvider>
  );
}
