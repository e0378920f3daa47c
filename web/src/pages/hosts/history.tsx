// What was measured of a host: processors, memory, disk and network, for hours or weeks.
import { useState } from "react";
import { useSamples } from "../../api/queries";
import type { Sample, Samples } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes, dateTime, kib, percent } from "../../lib/format";
import { Segmented } from "../../ui/controls";
import { Dialog } from "../../ui/dialog";
import { Loaded } from "../../ui/pieces";

const SPANS = ["1", "6", "24", "168", "1008"] as const;
type Span = (typeof SPANS)[number];

export function HostHistory({ host, onClose }: { host: string; onClose: () => void }) {
  const { t } = useWords();
  const [hours, setHours] = useState<Span>("6");
  const samples = useSamples(host, Number(hours));
  return (
    <Dialog title={t.hosts.history(host)} onClose={onClose} wide>
      <div className="dialog-body">
        <Segmented<Span> label={t.hosts.span} value={hours} onChange={setHours} options={SPANS.map((value) => ({ value, label: t.hosts.spans[value] }))} />
        <Loaded query={samples}>{(s) => (s.samples.length < 2 ? <p className="muted">{t.hosts.noSamples}</p> : <Charts samples={s} />)}</Loaded>
      </div>
    </Dialog>
  );
}

function Charts({ samples }: { samples: Samples }) {
  const { t } = useWords();
  const rate = (n: number) => t.hosts.perSecond(bytes(n));
  return (
    <div className="charts">
      <Chart samples={samples} label={t.hosts.cpu} text={percent} lines={[(s) => s.cpu_percent]} least={100} />
      <Chart samples={samples} label={t.hosts.memory} text={kib} lines={[(s) => s.memory_kib]} />
      <Chart samples={samples} label={t.hosts.disk} text={rate} lines={[(s) => s.read_rate, (s) => s.written_rate]} />
      <Chart samples={samples} label={t.hosts.network} text={rate} lines={[(s) => s.received_rate, (s) => s.sent_rate]} />
    </div>
  );
}

const WIDTH = 480;
const HEIGHT = 120;

/** Points of each line, in pieces: where nothing was measured the line is broken. */
export function pieces(samples: Sample[], span: number, value: (s: Sample) => number | null | undefined, top: number): string[] {
  const first = samples[0]?.at ?? 0;
  const whole = Math.max(1, (samples[samples.length - 1]?.at ?? 0) - first);
  const out: string[][] = [];
  let last: number | null = null;
  for (const s of samples) {
    const v = value(s);
    if (typeof v !== "number") {
      last = null;
      continue;
    }
    if (last === null || s.at - last > span * 60_000 * 1.5) out.push([]);
    last = s.at;
    const x = ((s.at - first) / whole) * WIDTH;
    const y = HEIGHT - 2 - (Math.min(v, top) / top) * (HEIGHT - 4);
    out[out.length - 1]?.push(`${x.toFixed(1)},${y.toFixed(1)}`);
  }
  return out.map((points) => points.join(" "));
}

function Chart({ samples, label, text, lines, least = 0 }: { samples: Samples; label: string; text: (n: number) => string; lines: ((s: Sample) => number | null | undefined)[]; least?: number }) {
  const { t, locale } = useWords();
  const all = samples.samples;
  const values = lines.flatMap((line) => all.map(line)).filter((v): v is number => typeof v === "number");
  const most = Math.max(0, ...values);
  const top = Math.max(least, most, 1e-9);
  const from = dateTime(all[0]?.at ?? 0, locale);
  const to = dateTime(all[all.length - 1]?.at ?? 0, locale);
  return (
    <figure>
      <figcaption>
        <span>{label}</span>
        <span className="muted small num">{values.length ? t.hosts.most(text(most)) : t.hosts.notMeasured}</span>
      </figcaption>
      <svg className="history" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={t.hosts.chartOf(label, from, to)}>
        {lines.map((line, i) => pieces(all, samples.span_minutes, line, top).map((points, k) => <polyline key={`${i}-${k}`} className={`line-${i}`} points={points} vectorEffect="non-scaling-stroke" />))}
      </svg>
      <p className="muted small row between">
        <span>{from}</span>
        <span>{to}</span>
      </p>
    </figure>
  );
}
