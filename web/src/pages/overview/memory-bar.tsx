// What sharing does: the whole bar is the memory the desktops see, the solid part what it takes.
import { useWords } from "../../i18n";
import type { ClusterMemory } from "../../lib/cluster";
import { mib, share } from "../../lib/format";

export function MemoryBar({ realMib, nominalMib, desktops }: ClusterMemory) {
  const { t } = useWords();
  if (desktops === 0 || nominalMib === 0) return <p className="muted">{t.overview.memoryIdle}</p>;
  const part = share(realMib, nominalMib);
  const sentence = t.overview.memoryExplain(desktops, mib(nominalMib), mib(realMib));
  return (
    <div className="memory-bar">
      <div className="memory-track" role="img" aria-label={sentence}>
        <span className="memory-real" style={{ width: `${Math.max(0.6, part * 100)}%` }} />
      </div>
      <div className="memory-legend" aria-hidden="true">
        <span>
          <i className="key-real" />
          <strong>{mib(realMib)}</strong> {t.overview.memoryReal}
        </span>
        <span>
          <i className="key-nominal" />
          <strong>{mib(nominalMib)}</strong> {t.overview.memoryNominal}
        </span>
      </div>
      <p className="muted">{sentence}</p>
    </div>
  );
}
