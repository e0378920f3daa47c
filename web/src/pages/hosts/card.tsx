// One host: what it carries, how it is doing, and what it warns of.
import { useState } from "react";
import type { Host, HostState } from "../../api/types";
import { useWords } from "../../i18n";
import { ago, bytes, mib, percent } from "../../lib/format";
import { Badge, Button, Notice, Tag } from "../../ui/controls";
import { Facts, Meter, Sparkline, useNow } from "../../ui/pieces";
import { HostHistory } from "./history";
import { PowerLine } from "./power";

function replicaText(t: ReturnType<typeof useWords>["t"], replica: NonNullable<Host["replica"]>): string {
  const holds = t.hosts.replicaHolds(replica.releases, bytes(replica.used_bytes), bytes(replica.limit_bytes));
  return typeof replica.filling_percent === "number" ? `${holds}; ${t.hosts.replicaFilling(percent(replica.filling_percent))}` : holds;
}

export function HostCard({ host, busy, onState }: { host: Host; busy: boolean; onState?: (state: HostState) => void }) {
  const { t, locale } = useWords();
  const [history, setHistory] = useState(false);
  const off = host.power.state !== "on";
  const now = useNow(10_000);
  const pressure = host.nominal_limit_mib > 0 ? host.nominal_mib / host.nominal_limit_mib : 0;
  return (
    <article className={`panel host-card ${host.online ? "" : "off"}`} aria-label={host.id}>
      <div className="row between wrap">
        <div>
          <h2>{host.id}</h2>
          <p className="muted small">{host.url}</p>
        </div>
        <div className="row">
          {host.state === "draining" && <Badge tone="warn">{t.hosts.draining}</Badge>}
          {off && !host.online ? <Badge tone="idle">{t.power.states[host.power.state]}</Badge> : host.online ? <Badge tone="good">{t.hosts.online}</Badge> : <Badge tone="bad">{t.hosts.offline}</Badge>}
        </div>
      </div>
      {!host.online && host.last_heard ? <p className="muted">{t.hosts.lastHeard(ago(host.last_heard, now, locale))}</p> : null}

      <div className="charts">
        <figure>
          <figcaption>
            <span>{t.hosts.cpu}</span>
            <strong className="num">{percent(host.cpu_percent)}</strong>
          </figcaption>
          <Sparkline label={t.hosts.chartCpu(host.id)} values={host.recent.map((s) => s.cpu_percent)} max={100} tone="info" />
        </figure>
        <figure>
          <figcaption>
            <span>{t.hosts.memory}</span>
            <strong className="num">{mib(host.desktops_pss_mib)}</strong>
          </figcaption>
          <Sparkline label={t.hosts.chartMemory(host.id)} values={host.recent.map((s) => s.desktops_pss_mib)} max={Math.max(1, ...host.recent.map((s) => s.desktops_pss_mib)) * 1.25} />
        </figure>
      </div>

      <div>
        <p className="row between small">
          <span>{t.hosts.nominal}</span>
          <span className="num muted">{t.hosts.nominalOf(mib(host.nominal_mib), mib(host.nominal_limit_mib))}</span>
        </p>
        <Meter label={t.hosts.nominal} value={host.nominal_mib} max={host.nominal_limit_mib} text={t.hosts.nominalOf(mib(host.nominal_mib), mib(host.nominal_limit_mib))} tone={pressure > 0.95 ? "bad" : pressure > 0.8 ? "warn" : "good"} />
      </div>

      <Facts
        items={[
          [t.hosts.desktops, host.desktops],
          [t.hosts.available, mib(host.available_mib)],
          [t.hosts.pressure, percent(host.memory_pressure, 1)],
          ...(host.replica ? [[t.hosts.replica, replicaText(t, host.replica)] as [string, string]] : []),
        ]}
      />

      {host.warnings.map((warning) => (
        <Notice key={warning} tone="warn">
          {t.say(warning)}
        </Notice>
      ))}
      {host.replica?.trouble && <Notice tone="warn">{t.say(host.replica.trouble)}</Notice>}
      {host.refuses_because && host.state === "active" && host.online && (
        <Notice tone="warn">
          {t.hosts.refuses} {t.say(host.refuses_because)}
        </Notice>
      )}

      <PowerLine host={host} admin={onState !== undefined} />

      <div className="row between wrap card-foot">
        <span className="row wrap">
          {host.accelerator && <Tag>{t.hosts.accelerator[host.accelerator]}</Tag>}
          {host.qemu_version && <Tag>{t.hosts.qemu(host.qemu_version)}</Tag>}
          <Tag>
            {t.hosts.machineCpu(host.cpus)} · {mib(host.memory_mib)}
          </Tag>
        </span>
        <span className="row">
          <Button size="small" onClick={() => setHistory(true)}>
            {t.hosts.showHistory}
          </Button>
          {onState && (
            <Button size="small" busy={busy} onClick={() => onState(host.state === "active" ? "draining" : "active")}>
              {host.state === "active" ? t.hosts.drain : t.hosts.activate}
            </Button>
          )}
        </span>
      </div>
      {history && <HostHistory host={host.id} onClose={() => setHistory(false)} />}
    </article>
  );
}
