import { useState } from "react";
import { hosts as orders } from "../../api/actions";
import { useHosts } from "../../api/queries";
import { useWords } from "../../i18n";
import { useSession } from "../../shell/session";
import { Button, Empty } from "../../ui/controls";
import { Loaded, PageHead } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { useConfirm } from "../../ui/dialog";
import { AddHost } from "./add-host";
import { HostCard } from "./card";
import { Moves } from "./moves";
import { NetworkPanel } from "./network";

export function HostsPage() {
  const { t } = useWords();
  const { admin } = useSession();
  const hosts = useHosts();
  const confirm = useConfirm();
  const [adding, setAdding] = useState(false);
  const stale = ["hosts", "moves", "operations"];
  const drain = useAction(orders.drain, { stale });
  const resume = useAction(orders.resume, { stale });
  return (
    <>
      <PageHead title={t.hosts.title} lead={t.hosts.lead}>
        {admin && (
          <Button icon="plus" onClick={() => setAdding(true)}>
            {t.hosts.add}
          </Button>
        )}
      </PageHead>
      <div className="stack">
        <Loaded query={hosts}>
          {(list) =>
            list.length === 0 ? (
              <Empty icon="host" title={t.hosts.none}>
                {t.hosts.noneHint}
              </Empty>
            ) : (
              <div className="host-cards">
                {list.map((host) => (
                  <HostCard
                    key={host.id}
                    host={host}
                    busy={drain.busy || resume.busy}
                    onState={
                      admin
                        ? async (state) => {
                            if (state === "active") resume.run(host.id);
                            else if (await confirm({ title: t.hosts.drainTitle(host.id), body: t.hosts.drainBody, confirm: t.hosts.drain })) drain.run(host.id);
                          }
                        : undefined
                    }
                  />
                ))}
              </div>
            )
          }
        </Loaded>
        <NetworkPanel />
        <Moves />
      </div>
      {adding && <AddHost onClose={() => setAdding(false)} />}
    </>
  );
}
