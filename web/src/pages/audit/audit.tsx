import { useAudit } from "../../api/queries";
import { useWords } from "../../i18n";
import { dateTime } from "../../lib/format";
import { Button, Empty } from "../../ui/controls";
import { Loaded, PageHead, TableWrap } from "../../ui/pieces";

export function AuditPage() {
  const { t, locale } = useWords();
  const audit = useAudit();
  return (
    <>
      <PageHead title={t.audit.title} lead={t.audit.lead} />
      <Loaded query={audit}>
        {(data) => {
          const entries = data.pages.flatMap((page) => page.items);
          if (entries.length === 0) return <Empty icon="audit" title={t.audit.none} />;
          return (
            <>
              <TableWrap label={t.audit.title}>
                <table className="audit">
                  <thead>
                    <tr>
                      <th>{t.audit.at}</th>
                      <th>{t.audit.actor}</th>
                      <th>{t.audit.action}</th>
                      <th>{t.audit.target}</th>
                      <th>{t.audit.detail}</th>
                      <th>{t.audit.address}</th>
                    </tr>
                  </thead>
                  <tbody>
                    {entries.map((entry) => (
                      <tr key={entry.id}>
                        <td className="num nowrap">{dateTime(entry.at, locale)}</td>
                        <td>
                          <strong>{entry.actor}</strong>
                        </td>
                        <td>
                          <code>{entry.action}</code>
                        </td>
                        <td className="muted breakable">{entry.target}</td>
                        <td className="breakable">{entry.detail}</td>
                        <td className="muted num">{entry.address}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </TableWrap>
              {audit.hasNextPage && (
                <p className="center">
                  <Button busy={audit.isFetchingNextPage} onClick={() => void audit.fetchNextPage()}>
                    {t.common.showMore}
                  </Button>
                </p>
              )}
            </>
          );
        }}
      </Loaded>
    </>
  );
}
