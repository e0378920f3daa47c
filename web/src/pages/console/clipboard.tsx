// The desktop's clipboard, as a panel: text goes over only when the person says so.
import { useState } from "react";
import { desktops } from "../../api/actions";
import { useWords } from "../../i18n";
import { Button, IconButton, TextArea } from "../../ui/controls";
import { useAction } from "../../ui/toast";

const MOST_BYTES = 32 * 1024;

export function ClipboardPanel({ desktop, onType, onClose }: { desktop: string; onType?: (text: string) => void; onClose: () => void }) {
  const { t } = useWords();
  const [text, setText] = useState("");
  const [said, setSaid] = useState("");
  const send = useAction((value: string) => desktops.setClipboard(desktop, value), { onDone: () => setSaid(t.console.sent) });
  const fetched = useAction(() => desktops.clipboard(desktop), {
    onDone: (clip) => {
      setText(clip.text);
      setSaid(clip.text ? t.console.fetched : t.console.fetchedEmpty);
    },
  });
  const tooLong = new TextEncoder().encode(text).length > MOST_BYTES;
  return (
    <section className="console-panel" aria-label={t.console.clipboard}>
      <header>
        <h2>{t.console.clipboard}</h2>
        <IconButton icon="close" label={t.common.close} onClick={onClose} />
      </header>
      <TextArea
        label={t.console.clipboardText}
        rows={6}
        value={text}
        onChange={(e) => {
          setText(e.target.value);
          setSaid("");
        }}
        hint={t.console.clipboardHint}
        error={tooLong ? t.console.tooLong : undefined}
        autoFocus
      />
      <div className="row wrap">
        <Button look="primary" size="small" busy={send.busy} disabled={tooLong} onClick={() => send.run(text)}>
          {t.console.toDesktop}
        </Button>
        {onType && (
          <Button
            size="small"
            disabled={tooLong || text === ""}
            onClick={() => {
              onType(text);
              setSaid(t.console.typed);
            }}
          >
            {t.console.typeText}
          </Button>
        )}
        <Button size="small" busy={fetched.busy} onClick={() => fetched.run()}>
          {t.console.fromDesktop}
        </Button>
      </div>
      <p className="hint" role="status">
        {said}
      </p>
    </section>
  );
}
