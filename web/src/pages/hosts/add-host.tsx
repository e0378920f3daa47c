// A one-time token and the line to run with it.
import { useState } from "react";
import { hosts } from "../../api/actions";
import type { AgentKind, JoinToken } from "../../api/types";
import { useWords } from "../../i18n";
import { dateTime } from "../../lib/format";
import { Button, Segmented, TextField } from "../../ui/controls";
import { Dialog, FormDialog } from "../../ui/dialog";
import { CopyButton } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

export function AddHost({ onClose }: { onClose: () => void }) {
  const { t, locale } = useWords();
  const [kind, setKind] = useState<AgentKind>("host");
  const [name, setName] = useState("");
  const [token, setToken] = useState<JoinToken | null>(null);
  const make = useAction(hosts.joinToken, { onDone: setToken });
  if (token) {
    const line = `lyceum ${kind} --join ${token.token}`;
    return (
      <Dialog title={t.hosts.add} onClose={onClose}>
        <div className="dialog-body">
          <p>{t.hosts.addLead}</p>
          <pre className="code">{line}</pre>
          <p className="hint">{t.hosts.tokenUntil(dateTime(token.expires, locale))}</p>
        </div>
        <footer>
          <CopyButton text={line} look="primary" size="normal" />
          <Button onClick={onClose}>{t.common.close}</Button>
        </footer>
      </Dialog>
    );
  }
  return (
    <FormDialog title={t.hosts.add} onClose={onClose} submit={t.hosts.makeToken} busy={make.busy} onSubmit={() => make.run(kind, name.trim())}>
      <Segmented<AgentKind>
        label={t.hosts.addKind}
        value={kind}
        onChange={setKind}
        options={[
          { value: "host", label: t.hosts.kindHost },
          { value: "storage", label: t.hosts.kindStorage },
        ]}
      />
      <TextField label={t.hosts.addName} value={name} onChange={(e) => setName(e.target.value)} required pattern="[a-z0-9][a-z0-9\-]{0,63}" placeholder="host-4" autoFocus spellCheck={false} />
    </FormDialog>
  );
}
