// A roster file: first what it would change, then the change, then the new people's links.
import { useId, useState } from "react";
import { courses } from "../../api/actions";
import type { Course, RosterChange, RosterCsv, RosterLink } from "../../api/types";
import { useWords } from "../../i18n";
import { absolute, canApply, linksText, rosterLines } from "../../lib/roster";
import { Badge, Button, CheckBox, Notice, TextArea } from "../../ui/controls";
import { Dialog } from "../../ui/dialog";
import { CopyButton, TableWrap } from "../../ui/pieces";
import { useAction, useToast } from "../../ui/toast";

const TONES = { create: "info", add: "good", change: "warn", remove: "bad" } as const;

export function ImportRoster({ course, onClose }: { course: Course; onClose: () => void }) {
  const { t } = useWords();
  const show = useToast();
  const id = useId();
  const [body, setBody] = useState<RosterCsv>({ csv: "", create_accounts: true, remove_missing: false });
  const [preview, setPreview] = useState<RosterChange | null>(null);
  const [links, setLinks] = useState<RosterLink[] | null>(null);
  const look = useAction(() => courses.previewRoster(course.id, body), { onDone: setPreview });
  const apply = useAction(() => courses.applyRoster(course.id, body), {
    stale: ["courses", "desktops", "users"],
    onDone: (done) => {
      show("good", t.roster.applied);
      if (done.links.length > 0) setLinks(done.links);
      else onClose();
    },
  });
  const change = (part: Partial<RosterCsv>) => {
    setBody({ ...body, ...part });
    setPreview(null);
  };

  if (links) return <Links course={course} links={links} onClose={onClose} />;
  return (
    <Dialog title={t.roster.importTitle} onClose={onClose} wide>
      <div className="dialog-body">
        <p>{t.roster.importLead}</p>
        <TextArea label={t.roster.paste} value={body.csv} onChange={(e) => change({ csv: e.target.value })} rows={6} placeholder={t.roster.example} className="mono" spellCheck={false} autoFocus />
        <div>
          <label htmlFor={id} className="button small">
            {t.roster.chooseFile}
          </label>
          <input
            id={id}
            type="file"
            className="sr-only"
            accept=".csv,.tsv,.txt,text/csv"
            onChange={(e) => {
              const file = e.target.files?.[0];
              if (file) void file.text().then((csv) => change({ csv }));
            }}
          />
        </div>
        <CheckBox label={t.roster.createAccounts} checked={body.create_accounts ?? false} onChange={(e) => change({ create_accounts: e.target.checked })} />
        <CheckBox label={t.roster.removeMissing} checked={body.remove_missing ?? false} onChange={(e) => change({ remove_missing: e.target.checked })} />
        {preview && <Preview change={preview} />}
      </div>
      <footer>
        <Button onClick={onClose}>{t.common.cancel}</Button>
        {preview && canApply(preview) ? (
          <Button look="primary" busy={apply.busy} onClick={() => apply.run()}>
            {t.roster.apply}
          </Button>
        ) : (
          <Button look="primary" busy={look.busy} disabled={!body.csv.trim()} onClick={() => look.run()}>
            {t.roster.preview}
          </Button>
        )}
      </footer>
    </Dialog>
  );
}

export function Preview({ change }: { change: RosterChange }) {
  const { t } = useWords();
  const lines = rosterLines(change);
  return (
    <section aria-live="polite" className="stack tight">
      {change.problems.length > 0 && (
        <Notice tone="bad">
          <p>{t.roster.problems}</p>
          <ul className="failures">
            {change.problems.map((p) => (
              <li key={`${p.line}${p.message}`}>
                <strong>{t.roster.line(p.line)}</strong> {t.say(p.message)}
              </li>
            ))}
          </ul>
        </Notice>
      )}
      {lines.length > 0 && (
        <TableWrap label={t.roster.preview} short>
          <table className="diff">
            <tbody>
              {lines.map((line) => (
                <tr key={line.mark + line.login} className={`mark-${line.mark}`}>
                  <td>
                    <Badge tone={TONES[line.mark]}>{t.roster.marks[line.mark]}</Badge>
                  </td>
                  <td>{line.login}</td>
                  <td>{line.name}</td>
                  <td className="muted">{t.role[line.role]}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableWrap>
      )}
      <p className="muted">
        {lines.length === 0 && change.problems.length === 0 ? `${t.roster.nothing} ` : ""}
        {t.roster.unchanged(change.unchanged)}
      </p>
    </section>
  );
}

function Links({ course, links, onClose }: { course: Course; links: RosterLink[]; onClose: () => void }) {
  const { t } = useWords();
  const { origin } = window.location;
  return (
    <Dialog title={`${t.roster.links} · ${course.name}`} onClose={onClose} wide>
      <div className="dialog-body printable">
        <Notice tone="warn">{t.roster.linksHint}</Notice>
        <ul className="links">
          {links.map((link) => (
            <li key={link.login}>
              <strong>{link.login}</strong>
              <code>{absolute(link.path, origin)}</code>
            </li>
          ))}
        </ul>
      </div>
      <footer>
        <CopyButton text={linksText(links, origin)} look="primary" size="normal" />
        <Button onClick={() => window.print()}>{t.common.print}</Button>
        <Button onClick={onClose}>{t.common.close}</Button>
      </footer>
    </Dialog>
  );
}
