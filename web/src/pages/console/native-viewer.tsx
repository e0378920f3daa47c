// How to look at the desktop with a viewer outside of the browser, and what each way can do.
import { useEffect, useState } from "react";
import { desktops } from "../../api/actions";
import { useViewerWays } from "../../api/queries";
import type { NativeViewer, SpiceViewer } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, IconButton } from "../../ui/controls";
import { useAction } from "../../ui/toast";

// Given to the browser as a download: it opens remote-viewer with it, or the person does.
function download({ file, file_name }: SpiceViewer) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file], { type: "application/x-virt-viewer" }));
  link.download = file_name;
  link.click();
  // Once the click has been dealt with.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function NativeViewerPanel({ desktop, viewOnly, onClose }: { desktop: string; viewOnly: boolean; onClose: () => void }) {
  const { t } = useWords();
  const [pass, setPass] = useState<NativeViewer | null>(null);
  const ask = useAction(() => desktops.nativeViewer(desktop, viewOnly), { onDone: setPass });
  const can = useViewerWays(desktop).data;
  const spice = useAction(() => desktops.spiceViewer(desktop), { onDone: download, done: t.native.spiceDone });
  // A password that does not work any more is not shown.
  useEffect(() => {
    if (!pass) return;
    const timer = setTimeout(() => setPass(null), Math.max(0, pass.expires - Date.now()));
    return () => clearTimeout(timer);
  }, [pass]);
  // What, in this page, by VNC, by SPICE.
  const ways = [
    [t.native.clipboard, t.native.clipboardPage, t.native.clipboardVnc, t.native.clipboardVnc],
    [t.native.sound, t.native.none, t.native.none, t.native.none],
    [t.native.watching, t.native.yes, t.native.yes, t.native.none],
    [t.native.together, t.native.yes, t.native.yes, t.native.none],
    [t.native.moved, t.native.movedStays, t.native.movedStays, t.native.movedAgain],
  ];
  return (
    <section className="console-panel" aria-label={t.native.title}>
      <header>
        <h2>{t.native.title}</h2>
        <IconButton icon="close" label={t.common.close} onClick={onClose} />
      </header>
      <p>{t.native.how}</p>
      {can?.vnc === false ? (
        <p className="hint">{t.native.noVnc}</p>
      ) : (
        <div className="row wrap">
          <Button look="primary" size="small" busy={ask.busy} onClick={() => ask.run()}>
            {t.native.ask}
          </Button>
        </div>
      )}
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
      <p>{t.native.spiceHow}</p>
      {can?.spice_reason ? (
        <p className="hint">{t.say(can.spice_reason)}</p>
      ) : viewOnly ? (
        <p className="hint">{t.native.spiceNoWatching}</p>
      ) : (
        <div className="row wrap">
          <Button size="small" busy={spice.busy} onClick={() => spice.run()}>
            {t.native.spiceOpen}
          </Button>
        </div>
      )}
      <table className="native-ways">
        <thead>
          <tr>
            {[t.native.way, t.native.page, "VNC", "SPICE"].map((way) => (
              <th key={way} scope="col">
                {way}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {ways.map(([what, ...has]) => (
            <tr key={what}>
              <th scope="row">{what}</th>
              {has.map((words, at) => (
                <td key={at}>{words}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
