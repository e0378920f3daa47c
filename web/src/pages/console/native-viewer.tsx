// How to look at the desktop with a VNC viewer outside of the browser, and what each way can do.
import { useEffect, useState } from "react";
import { desktops } from "../../api/actions";
import type { NativeViewer } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, IconButton } from "../../ui/controls";
import { useAction } from "../../ui/toast";

export function NativeViewerPanel({ desktop, viewOnly, onClose }: { desktop: string; viewOnly: boolean; onClose: () => void }) {
  const { t } = useWords();
  const [pass, setPass] = useState<NativeViewer | null>(null);
  const ask = useAction(() => desktops.nativeViewer(desktop, viewOnly), { onDone: setPass });
  // A password that does not work any more is not shown.
  useEffect(() => {
    if (!pass) return;
    const timer = setTimeout(() => setPass(null), Math.max(0, pass.expires - Date.now()));
    return () => clearTimeout(timer);
  }, [pass]);
  return (
    <section className="console-panel" aria-label={t.native.title}>
      <header>
        <h2>{t.native.title}</h2>
        <IconButton icon="close" label={t.common.close} onClick={onClose} />
      </header>
      <p>{t.native.how}</p>
      <div className="row wrap">
        <Button look="primary" size="small" busy={ask.busy} onClick={() => ask.run()}>
          {t.native.ask}
        </Button>
      </div>
      {pass && (
        <dl className="native-pass">
          <dt>{t.native.command}</dt>
          <dd>
            <code>{`vncviewer -SecurityTypes X509Plain ${location.hostname}::${pass.port}`}</code>
          </dd>
          <dt>{t.native.user}</dt>
          <dd>
            <code>{pass.user}</code>
          </dd>
          <dt>{t.native.password}</dt>
          <dd>
            <code>{pass.password}</code>
          </dd>
        </dl>
      )}
      <p className="hint">{t.native.once}</p>
      <table className="native-ways">
        <thead>
          <tr>
            <th scope="col">{t.native.way}</th>
            <th scope="col">{t.native.clipboard}</th>
            <th scope="col">{t.native.sound}</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">{t.native.page}</th>
            <td>{t.native.clipboardPage}</td>
            <td>{t.native.none}</td>
          </tr>
          <tr>
            <th scope="row">VNC</th>
            <td>{t.native.clipboardVnc}</td>
            <td>{t.native.none}</td>
          </tr>
        </tbody>
      </table>
    </section>
  );
}
