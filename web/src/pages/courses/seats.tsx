// A class as seats, or as a table.
import type { Desktop } from "../../api/types";
import { useWords } from "../../i18n";
import { kib, percent, seconds } from "../../lib/format";
import { allowed, isMoving, startedByText, toneOf } from "../../lib/phase";
import { LinkButton, PhaseBadge, Tag } from "../../ui/controls";
import { Icon } from "../../ui/icons";
import { Menu, type MenuItem, TableWrap } from "../../ui/pieces";
import { useDesktopOrders } from "../desktops/orders";

interface Props {
  desktops: Desktop[];
  chosen: ReadonlySet<string>;
  /** Whose desktops are not the students'. */
  teachers: ReadonlySet<string>;
  onToggle: (user: string) => void;
  onDetails: (desktop: Desktop) => void;
}

function useSeatMenu(desktop: Desktop, onDetails: () => void): { items: MenuItem[]; orders: ReturnType<typeof useDesktopOrders> } {
  const { t } = useWords();
  const orders = useDesktopOrders(desktop, desktop.user_name);
  const can = allowed(desktop.phase);
  const items: MenuItem[] = [
    { label: desktop.phase === "suspended" ? t.desktop.resume : t.desktop.start, icon: "play", disabled: !can.start, onSelect: orders.start },
    { label: t.desktop.suspend, icon: "suspend", disabled: !can.suspend, onSelect: orders.suspend },
    { label: t.desktop.move, icon: "host", disabled: desktop.phase !== "running", onSelect: orders.move },
    { label: desktop.pinned ? t.desktop.unpin : t.desktop.pin, icon: "pin", disabled: !desktop.id, onSelect: orders.pin },
    { label: t.desktop.reset, icon: "reset", disabled: !can.reset, onSelect: () => void orders.reset() },
    { label: desktop.phase === "suspended" ? t.desktop.discardSaved : t.desktop.stop, icon: "stop", disabled: !can.stop, onSelect: () => void orders.stop() },
    { label: t.common.details, icon: "info", disabled: !desktop.id, onSelect: onDetails },
    { label: t.desktop.remove, icon: "trash", danger: true, disabled: !desktop.id, onSelect: () => void orders.remove() },
  ];
  return { items, orders };
}

export function SeatGrid({ desktops, chosen, teachers, onToggle, onDetails }: Props) {
  return (
    <ul className="seats">
      {desktops.map((d) => (
        <Seat key={d.user} desktop={d} teacher={teachers.has(d.user)} chosen={chosen.has(d.user)} onToggle={() => onToggle(d.user)} onDetails={() => onDetails(d)} />
      ))}
    </ul>
  );
}

function Seat({ desktop: d, teacher, chosen, onToggle, onDetails }: { desktop: Desktop; teacher: boolean; chosen: boolean; onToggle: () => void; onDetails: () => void }) {
  const { t } = useWords();
  const { items } = useSeatMenu(d, onDetails);
  const can = allowed(d.phase);
  return (
    <li className={`seat tone-${toneOf(d.phase)} ${chosen ? "chosen" : ""} ${isMoving(d.phase) ? "moving" : ""}`}>
      <div className="row between seat-top">
        <label className="seat-name">
          <input type="checkbox" checked={chosen} onChange={onToggle} aria-label={t.courses.choose(d.user_name)} />
          <span title={d.user_name}>{d.user_name}</span>
          {teacher && (
            <span className="seat-role" title={t.role.teacher}>
              <Icon name="course" size={18} />
              <span className="sr-only">{t.role.teacher}</span>
            </span>
          )}
        </label>
        <Menu small label={`${t.common.actions}: ${d.user_name}`} items={items} />
      </div>
      <PhaseBadge phase={d.phase} />
      <p className="seat-facts num">
        {d.phase === "running" ? (
          <>
            {typeof d.usable_ms === "number" && <span title={t.courses.readyIn}>{seconds(d.usable_ms, t)}</span>}
            <span title={t.courses.memory}>{kib(d.pss_kib)}</span>
            <span title={t.courses.cpu}>{percent(d.cpu_percent)}</span>
          </>
        ) : (
          <span className="seat-detail" title={t.say(d.detail)}>
            {t.say(d.detail) || " "}
          </span>
        )}
      </p>
      <div className="row between seat-foot">
        <span className="muted small" title={d.pinned ? t.desktop.pinned : undefined}>
          {d.host ?? ""}
          {d.pinned && (
            <>
              {" "}
              <Icon name="pin" size={18} />
              <span className="sr-only">{t.desktop.pinned}</span>
            </>
          )}
        </span>
        {(d.notice || d.cold_reason) && (
          <span className="seat-flag" title={d.notice ? t.say(d.notice) : `${t.desktop.coldWhy} ${t.say(d.cold_reason ?? "")}`}>
            <Icon name="warning" size={16} />
            <span className="sr-only">{t.say(d.notice ?? d.cold_reason ?? "")}</span>
          </span>
        )}
        {can.open && (
          <a className="seat-open" href={`#/console/${d.id}`} aria-label={`${t.courses.open}: ${d.user_name}`} title={t.courses.lookOver}>
            <Icon name="eye" size={18} /> {t.courses.open}
          </a>
        )}
      </div>
    </li>
  );
}

export function SeatTable({ desktops, chosen, teachers, onToggle, onDetails }: Props) {
  const { t } = useWords();
  return (
    <TableWrap label={t.courses.tabs.class}>
      <table>
        <thead>
          <tr>
            <th>
              <span className="sr-only">{t.courses.chooseAll}</span>
            </th>
            <th>{t.courses.student}</th>
            <th>{t.courses.state}</th>
            <th>{t.courses.host}</th>
            <th className="right">{t.courses.readyIn}</th>
            <th className="right">{t.courses.memory}</th>
            <th className="right">{t.courses.cpu}</th>
            <th>
              <span className="sr-only">{t.common.actions}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {desktops.map((d) => (
            <Row key={d.user} desktop={d} teacher={teachers.has(d.user)} chosen={chosen.has(d.user)} onToggle={() => onToggle(d.user)} onDetails={() => onDetails(d)} />
          ))}
        </tbody>
      </table>
    </TableWrap>
  );
}

function Row({ desktop: d, teacher, chosen, onToggle, onDetails }: { desktop: Desktop; teacher: boolean; chosen: boolean; onToggle: () => void; onDetails: () => void }) {
  const { t } = useWords();
  const { items } = useSeatMenu(d, onDetails);
  const running = d.phase === "running";
  const how = startedByText(d, t);
  return (
    <tr>
      <td>
        <input type="checkbox" checked={chosen} onChange={onToggle} aria-label={t.courses.choose(d.user_name)} />
      </td>
      <td>
        <strong>{d.user_name}</strong> {teacher && <Tag>{t.role.teacher}</Tag>}
      </td>
      <td>
        <PhaseBadge phase={d.phase} />
        {!running && d.detail && <span className="muted small block">{t.say(d.detail)}</span>}
        {d.notice && <span className="muted small block">{t.say(d.notice)}</span>}
      </td>
      <td className="muted">{d.host ?? ""}</td>
      <td className="right num">
        {running && typeof d.usable_ms === "number" ? seconds(d.usable_ms, t) : ""}
        {running && how && <span className="muted small block">{how}</span>}
      </td>
      <td className="right num">{running ? kib(d.pss_kib) : ""}</td>
      <td className="right num">{running ? percent(d.cpu_percent) : ""}</td>
      <td>
        <span className="row end">
          {allowed(d.phase).open && (
            <LinkButton size="small" to={`/console/${d.id}`}>
              {t.courses.open}
            </LinkButton>
          )}
          <Menu small label={`${t.common.actions}: ${d.user_name}`} items={items} />
        </span>
      </td>
    </tr>
  );
}
