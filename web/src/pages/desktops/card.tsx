// One desktop of one's own.
import { useState } from "react";
import { useDesktopPoints } from "../../api/queries";
import type { Desktop, Phase } from "../../api/types";
import { useWords } from "../../i18n";
import { allowed, isMoving, phaseSentence, startedByText, toneOf } from "../../lib/phase";
import { sizeText } from "../../lib/format";
import { Button, LinkButton, Notice, PhaseBadge, Tag } from "../../ui/controls";
import { Icon, type IconName } from "../../ui/icons";
import { Menu, Progress, type MenuItem } from "../../ui/pieces";
import { DesktopPointsDialog } from "../restore-points/desktop-points";
import { useDesktopOrders } from "./orders";

/** What the little screen shows when there is no picture on it. */
const SCREEN_ICONS: Record<Exclude<Phase, "running">, IconName> = {
  stopped: "stop",
  starting: "bolt",
  suspending: "suspend",
  suspended: "suspend",
  stopping: "stop",
  failed: "warning",
  unknown: "info",
};

export function DesktopCard({ desktop }: { desktop: Desktop }) {
  const { t } = useWords();
  const orders = useDesktopOrders(desktop, desktop.course_name);
  const can = allowed(desktop.phase);
  const moving = isMoving(desktop.phase);
  const how = startedByText(desktop, t);

  // Where the course lets its students go back.
  const points = useDesktopPoints(desktop.id, true);
  const [goingBack, setGoingBack] = useState(false);

  const more: MenuItem[] = [
    ...(points.data && points.data.length > 0 ? [{ label: t.points.goBack, icon: "back" as const, onSelect: () => setGoingBack(true) }] : []),
    ...(can.suspend ? [{ label: t.desktop.suspend, icon: "suspend" as const, onSelect: orders.suspend }] : []),
    ...(can.stop
      ? [{ label: desktop.phase === "suspended" ? t.desktop.discardSaved : t.desktop.stop, icon: "stop" as const, onSelect: () => void orders.stop() }]
      : []),
    ...(can.start && desktop.persistence === "persistent" ? [{ label: t.desktop.coldBoot, icon: "play" as const, onSelect: orders.startCold }] : []),
  ];

  return (
    <article className={`desktop-card tone-${toneOf(desktop.phase)}`} aria-label={desktop.course_name}>
      <div className="screen" aria-hidden="true">
        <div className="glow" />
        {desktop.phase === "running" ? (
          <>
            <span className="window back" />
            <span className="window" />
          </>
        ) : (
          <Icon name={SCREEN_ICONS[desktop.phase]} size={40} />
        )}
      </div>
      <div className="desktop-body">
        <div className="row between">
          <h2>{desktop.course_name}</h2>
          <PhaseBadge phase={desktop.phase} />
        </div>
        <p className="sentence" aria-live="polite">
          {phaseSentence(desktop, t)}
          {desktop.phase === "running" && how && <span className="how"> · {how}</span>}
        </p>
        {moving && <Progress label={t.phase[desktop.phase]} done={0} total={null} />}
        {desktop.notice && <Notice tone="warn">{t.say(desktop.notice)}</Notice>}
        {desktop.cold_reason && (
          <Notice>
            {t.desktop.coldWhy} {t.say(desktop.cold_reason)}
          </Notice>
        )}
        <div className="desktop-actions">
          {can.start ? (
            <Button look="primary" size="big" icon="play" busy={orders.busy} onClick={orders.start}>
              {desktop.phase === "suspended" ? t.desktop.resume : t.desktop.start}
            </Button>
          ) : (
            can.open && (
              <LinkButton look="primary" size="big" icon="open" to={`/console/${desktop.id}`}>
                {t.desktop.open}
              </LinkButton>
            )
          )}
          {can.reset && (
            <Button size="big" icon="reset" busy={orders.busy} onClick={() => void orders.reset()}>
              {t.desktop.reset}
            </Button>
          )}
          {can.suspend && (
            <Button size="big" icon="suspend" busy={orders.busy} onClick={orders.suspend} className="wide-only">
              {t.desktop.suspend}
            </Button>
          )}
          {more.length > 0 && <Menu label={t.common.more} items={more} />}
        </div>
        {goingBack && <DesktopPointsDialog desktop={desktop} onClose={() => setGoingBack(false)} />}
        <p className="desktop-foot">
          <Tag title={desktop.persistence === "throwaway" ? t.desktop.throwawayHint : t.desktop.persistentHint}>
            {desktop.persistence === "throwaway" ? t.desktop.throwaway : t.desktop.persistent}
          </Tag>
          <span>{sizeText(desktop.size, t)}</span>
        </p>
      </div>
    </article>
  );
}
