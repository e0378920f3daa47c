// The class as it sits there: every desktop, and orders for all or the chosen.
import { useState } from "react";
import { courses as orders, desktops as desktopOrders, type DesktopOrder } from "../../api/actions";
import { useCourseDesktops, useOperations, useRoster } from "../../api/queries";
import type { Course, Desktop } from "../../api/types";
import { useWords } from "../../i18n";
import { classSummary } from "../../lib/cluster";
import { kib, mib, seconds } from "../../lib/format";
import { allowed } from "../../lib/phase";
import { seatsOf } from "../../lib/seats";
import { go } from "../../router";
import { useSession } from "../../shell/session";
import { Button, Empty, LinkButton, Segmented } from "../../ui/controls";
import { useConfirm } from "../../ui/dialog";
import { Loaded, Menu } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { OperationRow } from "../operations/row";
import { DesktopDetails } from "./details";
import { HandOut } from "./hand-out";
import { SeatGrid, SeatTable } from "./seats";

const STALE = ["desktops", "operations", "courses"];
const VIEW = "lyceum.class-view";

export function ClassView({ course }: { course: Course }) {
  const { t } = useWords();
  const confirm = useConfirm();
  const desktops = useCourseDesktops(course.id);
  const roster = useRoster(course.id);
  const operations = useOperations();
  const [view, setViewState] = useState<"seats" | "table">(() => (localStorage.getItem(VIEW) === "table" ? "table" : "seats"));
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [handingOut, setHandingOut] = useState(false);
  const [shown, setShown] = useState<string | null>(null);
  const setView = (next: "seats" | "table") => {
    localStorage.setItem(VIEW, next);
    setViewState(next);
  };

  const order = useAction((what: DesktopOrder, users: string[] | null, cold?: boolean) => orders.order(course.id, what, { ...(users ? { users } : {}), ...(cold ? { cold } : {}) }), { stale: STALE });

  return (
    <Loaded query={desktops}>
      {(list) => {
        const sorted = seatsOf(course, list, roster.data ?? []);
        const users = [...chosen].filter((id) => sorted.some((d) => d.user === id));
        const some = users.length > 0 ? users : null;
        const teachers = new Set(roster.data?.filter((m) => m.role === "teacher").map((m) => m.user));
        // An order to the class is about its students; a teacher's own desktop only when it is chosen.
        const about = sorted.filter((d) => (some ? chosen.has(d.user) : !teachers.has(d.user)));
        const summary = classSummary(sorted);
        const running = operations.data?.filter((o) => o.state === "running" && o.target === `course/${course.id}`) ?? [];
        const ask = async (what: DesktopOrder, title: string, body: string, label: string, danger: boolean) => {
          if (await confirm({ title, body: `${body} ${t.courses.affects(about.length)}`, confirm: label, danger })) order.run(what, some);
        };
        const toggle = (user: string) => {
          const next = new Set(chosen);
          if (!next.delete(user)) next.add(user);
          setChosen(next);
        };
        return (
          <div className="stack">
            <div className="class-bar">
              <div className="row wrap">
                <Button look="primary" size="big" icon="play" busy={order.busy} disabled={!about.some((d) => allowed(d.phase).start)} onClick={() => order.run("start", some)}>
                  {t.courses.startClass}
                </Button>
                <Button size="big" icon="suspend" disabled={!about.some((d) => allowed(d.phase).suspend)} onClick={() => void ask("suspend", t.courses.suspendTitle, t.courses.suspendBody, t.courses.suspendClass, false)}>
                  {t.courses.suspendClass}
                </Button>
                <Button size="big" icon="reset" disabled={!about.some((d) => allowed(d.phase).reset)} onClick={() => void ask("reset", t.courses.resetTitle, t.courses.resetBody, t.courses.resetClass, true)}>
                  {t.courses.resetClass}
                </Button>
                <Button size="big" icon="stop" disabled={!about.some((d) => allowed(d.phase).stop)} onClick={() => void ask("stop", t.courses.stopTitle, course.persistence === "throwaway" ? t.courses.stopThrowaway : t.courses.stopPersistent, t.courses.stopClass, true)}>
                  {t.courses.stopClass}
                </Button>
                <Button size="big" icon="handout" onClick={() => setHandingOut(true)}>
                  {t.courses.handOut}
                </Button>
                <Menu label={t.common.more} items={[{ label: t.courses.startCold, icon: "play", onSelect: () => order.run("start", some, true) }]} />
              </div>
            </div>

            {running.map((o) => (
              <div key={o.id} className="panel slim">
                <OperationRow operation={o} />
              </div>
            ))}

            {roster.data === undefined && sorted.length === 0 ? null : sorted.length === 0 ? (
              <Empty icon="people" title={t.courses.noDesktops} action={<LinkButton look="primary" to={`/courses/${course.id}/roster`}>{t.courses.toRoster}</LinkButton>}>
                {t.courses.noDesktopsHint}
              </Empty>
            ) : (
              <>
                <div className="row between wrap">
                  <p className="class-summary num" aria-live="polite">
                    <strong>{t.courses.summaryReady(summary.running)}</strong>
                    {summary.medianMs !== null && <span>{t.courses.summaryMedian(seconds(summary.medianMs, t))}</span>}
                    {summary.slowestMs !== null && <span>{t.courses.summaryLast(seconds(summary.slowestMs, t))}</span>}
                    {summary.realKib > 0 && <span>{t.courses.memoryShared(kib(summary.realKib), mib(summary.nominalMib))}</span>}
                  </p>
                  <div className="row wrap">
                    {users.length > 0 ? (
                      <>
                        <span className="muted">{t.courses.chosen(users.length)}</span>
                        <Button size="small" look="quiet" onClick={() => setChosen(new Set())}>
                          {t.courses.clear}
                        </Button>
                      </>
                    ) : null}
                    <Button size="small" look="quiet" onClick={() => setChosen(new Set(sorted.map((d) => d.user)))}>
                      {t.courses.chooseAll}
                    </Button>
                    <Segmented
                      label={t.courses.view}
                      value={view}
                      onChange={setView}
                      options={[
                        { value: "seats", label: t.courses.seats, icon: "seats" },
                        { value: "table", label: t.courses.table, icon: "table" },
                      ]}
                    />
                  </div>
                </div>
                {view === "seats" ? (
                  <SeatGrid desktops={sorted} teachers={teachers} chosen={chosen} onToggle={toggle} onDetails={(d) => setShown(d.id)} />
                ) : (
                  <SeatTable desktops={sorted} teachers={teachers} chosen={chosen} onToggle={toggle} onDetails={(d) => setShown(d.id)} />
                )}
              </>
            )}
            {handingOut && <HandOut course={course} desktops={sorted} chosen={some} onClose={() => setHandingOut(false)} />}
            <Details desktops={sorted} shown={shown} onClose={() => setShown(null)} />
          </div>
        );
      }}
    </Loaded>
  );
}

/** The teacher's own desktop in the course: made when first wanted. */
export function MyDesktop({ course }: { course: Course }) {
  const { t } = useWords();
  const { me } = useSession();
  const desktops = useCourseDesktops(course.id);
  const own = desktops.data?.find((d) => d.user === me.user.id);
  const make = useAction(() => desktopOrders.ensure(course.id, me.user.id), { stale: STALE, onDone: (desktop) => go(`/console/${desktop.id}`) });
  return (
    <Button icon="desktop" busy={make.busy} onClick={() => (own ? go(`/console/${own.id}`) : make.run())}>
      {own ? t.courses.openMine : t.courses.myDesktop}
    </Button>
  );
}

function Details({ desktops, shown, onClose }: { desktops: Desktop[]; shown: string | null; onClose: () => void }) {
  const desktop = shown ? desktops.find((d) => d.id === shown) : undefined;
  return desktop ? <DesktopDetails desktop={desktop} onClose={onClose} /> : null;
}
