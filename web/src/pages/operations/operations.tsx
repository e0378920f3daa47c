import { useState } from "react";
import { useOperations } from "../../api/queries";
import { useWords } from "../../i18n";
import { CheckBox } from "../../ui/controls";
import { Loaded, PageHead } from "../../ui/pieces";
import { OperationRow } from "./row";

export function OperationsPage() {
  const { t } = useWords();
  const operations = useOperations();
  const [onlyFailed, setOnlyFailed] = useState(false);
  return (
    <>
      <PageHead title={t.operations.title} lead={t.operations.lead} />
      <Loaded query={operations}>
        {(list) => {
          const running = list.filter((o) => o.state === "running");
          const ended = list.filter((o) => o.state !== "running" && (!onlyFailed || o.failures.length > 0 || o.state === "failed"));
          return (
            <div className="stack wide-gap">
              <section className="panel" aria-labelledby="running">
                <h2 id="running">{t.operations.running}</h2>
                {running.length === 0 ? <p className="muted">{t.overview.noWork}</p> : running.map((o) => <OperationRow key={o.id} operation={o} />)}
              </section>
              <section className="panel" aria-labelledby="finished">
                <div className="row between wrap">
                  <h2 id="finished">{t.operations.finished}</h2>
                  <CheckBox label={t.operations.onlyFailed} checked={onlyFailed} onChange={(e) => setOnlyFailed(e.target.checked)} />
                </div>
                {ended.length === 0 ? <p className="muted">{t.operations.none}</p> : ended.map((o) => <OperationRow key={o.id} operation={o} />)}
              </section>
            </div>
          );
        }}
      </Loaded>
    </>
  );
}
