import { useAllDesktops, useHosts, useOperations, useStorage } from "../../api/queries";
import type { Host, Storage, TierUsage } from "../../api/types";
import { useWords } from "../../i18n";
import { clusterMemory, median } from "../../lib/cluster";
import { bytes, seconds } from "../../lib/format";
import { countPhases, toneOf } from "../../lib/phase";
import { Notice } from "../../ui/controls";
import { Icon } from "../../ui/icons";
import { Loaded, Meter, PageHead } from "../../ui/pieces";
import { OperationRow } from "../operations/row";
import { MemoryBar } from "./memory-bar";

export function OverviewPage() {
  const { t } = useWords();
  const hosts = useHosts();
  const storage = useStorage();
  const operations = useOperations();
  const desktops = useAllDesktops(true);
  const all = desktops.data ?? [];
  const counts = countPhases(all);
  const ready = median(all.flatMap((d) => (d.phase === "running" && typeof d.usable_ms === "number" ? [d.usable_ms] : [])));
  const online = hosts.data?.filter((h) => h.online).length ?? 0;
  const running = operations.data?.filter((o) => o.state === "running") ?? [];

  return (
    <>
      <PageHead title={t.overview.title} />
      <div className="stats">
        <div className="stat">
          <p>{t.overview.running}</p>
          <strong>{counts.running}</strong>
          <span>{t.overview.ofAll(all.length)}</span>
        </div>
        <div className="stat">
          <p>{t.overview.median}</p>
          <strong>{ready === null ? "—" : seconds(ready, t)}</strong>
          {ready === null && <span>{t.overview.noMedian}</span>}
        </div>
        <div className="stat">
          <p>{t.overview.hostsOnline}</p>
          <strong>{online}</strong>
          <span>{t.overview.ofAll(hosts.data?.length ?? 0)}</span>
        </div>
        <div className="stat">
          <p>{t.overview.work}</p>
          <strong>{running.length}</strong>
        </div>
      </div>

      <Loaded query={hosts} rows={1}>
        {(list) => (
          <section className="panel" aria-labelledby="memory-title">
            <div className="row between wrap">
              <h2 id="memory-title">{t.overview.memoryTitle}</h2>
              <Factor hosts={list} />
            </div>
            <MemoryBar {...clusterMemory(list)} />
            <ul className="host-seats">
              {list.map((host) => (
                <li key={host.id}>
                  <a href={`#/hosts`}>
                    <Icon name="host" size={16} /> {host.id}
                  </a>
                  <span className="seat-dots" aria-label={`${t.hosts.desktops}: ${host.desktops}`} role="img">
                    {all
                      .filter((d) => d.host === host.id)
                      .slice(0, 120)
                      .map((d) => (
                        <i key={d.id} className={`tone-${toneOf(d.phase)}`} />
                      ))}
                  </span>
                  <span className="muted num">{host.desktops}</span>
                </li>
              ))}
            </ul>
          </section>
        )}
      </Loaded>

      <div className="columns">
        <section className="panel" aria-labelledby="work-title">
          <h2 id="work-title">{t.overview.work}</h2>
          {running.length === 0 ? <p className="muted">{t.overview.noWork}</p> : running.slice(0, 6).map((o) => <OperationRow key={o.id} operation={o} />)}
        </section>
        <section className="panel" aria-labelledby="tiers-title">
          <h2 id="tiers-title">{t.overview.tiers}</h2>
          <Loaded query={storage} rows={1}>
            {(s) => <Tiers storage={s} />}
          </Loaded>
        </section>
        <section className="panel" aria-labelledby="warn-title">
          <h2 id="warn-title">{t.overview.warnings}</h2>
          <Warnings hosts={hosts.data ?? []} storage={storage.data} />
        </section>
      </div>
    </>
  );
}

function Factor({ hosts }: { hosts: Host[] }) {
  const { t } = useWords();
  const memory = clusterMemory(hosts);
  return memory.desktops > 0 && memory.realMib > 0 ? <span className="factor">{t.overview.memorySaved(memory.factor.toFixed(memory.factor < 10 ? 1 : 0))}</span> : null;
}

function Tier({ name, hint, usage, written }: { name: string; hint: string; usage: TierUsage; written: number }) {
  const { t } = useWords();
  const text = t.overview.used(bytes(usage.used_bytes), bytes(usage.free_bytes));
  const free = usage.total_bytes > 0 ? usage.free_bytes / usage.total_bytes : 1;
  return (
    <div className="tier">
      <p>
        <strong>{name}</strong> <span className="muted">{hint}</span>
      </p>
      <Meter label={name} value={usage.total_bytes - usage.free_bytes} max={usage.total_bytes} text={text} tone={free < 0.05 ? "bad" : free < 0.15 ? "warn" : "info"} />
      <p className="muted num">
        {text} · {t.overview.writtenToday(bytes(written))}
      </p>
    </div>
  );
}

function Tiers({ storage }: { storage: Storage }) {
  const { t } = useWords();
  return (
    <>
      {storage.fast && <Tier name={t.overview.fast} hint={t.overview.fastHint} usage={storage.fast} written={storage.fast_written_today} />}
      {storage.slow && <Tier name={t.overview.slow} hint={t.overview.slowHint} usage={storage.slow} written={storage.slow_written_today} />}
      <p className="muted">
        {t.overview.driver}: {storage.driver}
        {storage.durability && ` · ${t.overview.durability}: ${storage.durability}`}
        {typeof storage.desktops_left === "number" && ` · ${t.overview.desktopsLeft(storage.desktops_left)}`}
        {storage.same_device && ` · ${t.overview.sameDevice}`}
      </p>
    </>
  );
}

function Warnings({ hosts, storage }: { hosts: Host[]; storage: Storage | undefined }) {
  const { t } = useWords();
  // Hosts alike say the same; it is said once, with who says it.
  const said = new Map<string, string[]>();
  for (const host of hosts) {
    if (!host.online) said.set(t.overview.hostOffline(host.id), []);
    for (const warning of host.warnings) said.set(t.say(warning), [...(said.get(t.say(warning)) ?? []), host.id]);
    if (host.refuses_because && host.online && host.state === "active") {
      const text = `${t.hosts.refuses} ${t.say(host.refuses_because)}`;
      said.set(text, [...(said.get(text) ?? []), host.id]);
    }
  }
  if (storage && !storage.online) said.set(t.overview.storageOffline, []);
  for (const warning of storage?.warnings ?? []) said.set(t.say(warning), [...(said.get(t.say(warning)) ?? [])]);
  if (said.size === 0) {
    return (
      <p className="muted row">
        <Icon name="check" size={18} /> {t.overview.noWarnings}
      </p>
    );
  }
  return (
    <div className="stack tight">
      {[...said].map(([text, who]) => (
        <Notice key={text} tone="warn">
          {text}
          {who.length > 0 && <span className="muted"> ({who.join(", ")})</span>}
        </Notice>
      ))}
    </div>
  );
}
