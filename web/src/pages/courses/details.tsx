// All that is known of a desktop, and why it is where it is.
import { useHistory } from "../../api/queries";
import type { Desktop } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes, clock, dateTime, kib, mib, percent, seconds, shortHash, sizeText } from "../../lib/format";
import { startedByText } from "../../lib/phase";
import { Badge, LinkButton, Notice, PhaseBadge } from "../../ui/controls";
import { Dialog } from "../../ui/dialog";
import { Facts, Loaded } from "../../ui/pieces";
import { DesktopPoints } from "../restore-points/desktop-points";

export function DesktopDetails({ desktop: d, onClose }: { desktop: Desktop; onClose: () => void }) {
  const { t, locale } = useWords();
  const history = useHistory(d.id);
  const how = startedByText(d, t);
  return (
    <Dialog title={d.user_name} onClose={onClose} wide>
      <div className="dialog-body">
        <p className="row wrap">
          <PhaseBadge phase={d.phase} />
          {d.detail && <span>{t.say(d.detail)}</span>}
        </p>
        {d.notice && <Notice tone="warn">{t.say(d.notice)}</Notice>}
        {d.cold_reason && (
          <Notice>
            {t.desktop.coldWhy} {t.say(d.cold_reason)}
          </Notice>
        )}
        <Facts
          items={[
            [t.desktop.changed, dateTime(d.changed, locale)],
            d.host ? [t.desktop.host, d.host] : null,
            d.address ? [t.desktop.address, <code>{d.address}</code>] : null,
            typeof d.usable_ms === "number" && [t.courses.readyIn, `${seconds(d.usable_ms, t)}${how ? ` · ${how}` : ""}`],
            [t.desktop.memory, t.desktop.memoryOf(kib(d.pss_kib), mib(d.size.memory_mib))],
            [t.desktop.cpu, percent(d.cpu_percent)],
            [t.desktop.size, sizeText(d.size, t)],
            d.release ? [t.desktop.release, <code title={d.release}>{shortHash(d.release)}</code>] : null,
            typeof d.delta_bytes === "number" && [t.desktop.saved, typeof d.suspend_ms === "number" ? t.desktop.savedIn(bytes(d.delta_bytes), seconds(d.suspend_ms, t)) : bytes(d.delta_bytes)],
          ]}
        />
        {d.id && (
          <>
            <h3>{t.points.title}</h3>
            <DesktopPoints desktop={d} staff />
          </>
        )}
        <h3>{t.desktop.history}</h3>
        <Loaded query={history} rows={1}>
          {(h) =>
            h.placements.length === 0 ? (
              <p className="muted">{t.desktop.noHistory}</p>
            ) : (
              <ol className="placements">
                {h.placements.map((p) => (
                  <li key={p.at}>
                    <p className="row wrap">
                      <span className="muted num">{clock(p.at, locale)}</span>
                      {p.host ? <strong>{p.host}</strong> : <Badge tone="bad">{t.desktop.refused}</Badge>}
                      <span>{p.reason}</span>
                    </p>
                    <details>
                      <summary>{t.desktop.considered}</summary>
                      <pre className="code">{JSON.stringify(p.snapshot, null, 1)}</pre>
                    </details>
                  </li>
                ))}
              </ol>
            )
          }
        </Loaded>
      </div>
      <footer>
        <LinkButton icon="eye" to={`/console/${d.id}`}>
          {t.courses.lookOver}
        </LinkButton>
      </footer>
    </Dialog>
  );
}
