// The gateway's and the hosts' part in courses' networks: what is wrong, and what somebody changed by hand.
import { useNetwork } from "../../api/queries";
import type { Network } from "../../api/types";
import { useWords } from "../../i18n";
import { dateTime } from "../../lib/format";
import { Notice } from "../../ui/controls";

export function NetworkPanel() {
  const { t } = useWords();
  const network = useNetwork().data;
  const shown = network && (network.gateway != null || network.problem != null || network.hosts.some((h) => h.kind !== "user"));
  if (!shown) return null;
  return (
    <section className="panel" aria-labelledby="network">
      <h2 id="network">{t.network.whole}</h2>
      <Lines network={network} />
    </section>
  );
}

function Lines({ network }: { network: Network }) {
  const { t, locale } = useWords();
  const repaired = [{ id: t.network.gateway, ...network }, ...network.hosts];
  return (
    <div className="stack">
      {network.problem && (
        <Notice tone="warn">
          {t.network.gatewayProblem} {t.say(network.problem)}
        </Notice>
      )}
      {network.hosts.map(
        (h) =>
          h.problem && (
            <Notice key={h.id} tone="warn">
              {h.id}: {t.network.gatewayProblem} {t.say(h.problem)}
            </Notice>
          ),
      )}
      <p className="muted">
        {network.gateway != null && t.network.gatewayAt(network.gateway)} {t.network.doors(network.doors)}
      </p>
      {repaired.map(
        ({ id, repaired: what, repaired_at: at }) =>
          what != null &&
          at != null && (
            <p key={id}>
              {t.network.repaired(id, dateTime(at, locale))} {t.say(what)}
            </p>
          ),
      )}
    </div>
  );
}
