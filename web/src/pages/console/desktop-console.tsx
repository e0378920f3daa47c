// The console of a desktop. Opening it starts the desktop when it is off.
import { useEffect, useRef, useState } from "react";
import { desktops } from "../../api/actions";
import { useDesktop } from "../../api/queries";
import type { Desktop } from "../../api/types";
import { useWords } from "../../i18n";
import { readyText } from "../../lib/phase";
import { useSession } from "../../shell/session";
import { Button, IconButton, LinkButton } from "../../ui/controls";
import { errorText } from "../../ui/toast";
import { useDesktopOrders } from "../desktops/orders";
import { ClipboardPanel } from "./clipboard";
import { NativeViewerPanel } from "./native-viewer";
import { ConsoleScreen, type Overlay } from "./console-screen";
import { overlayFor } from "./overlay";

function Loaded({ desktop }: { desktop: Desktop }) {
  const { t } = useWords();
  const { me, staff } = useSession();
  const mine = desktop.user === me.user.id;
  const orders = useDesktopOrders(desktop, desktop.course_name);
  const [panel, setPanel] = useState<"clipboard" | "viewer" | null>(null);
  const toggle = (name: "clipboard" | "viewer") => setPanel(panel === name ? null : name);
  // Who looks at another person's desktop touches nothing until they say so.
  const [watching, setWatching] = useState(!mine);

  // Opening means wanting to use it. Once: who switches it off here wants it off.
  const opened = useRef(false);
  const { phase } = desktop;
  useEffect(() => {
    if (opened.current) return;
    opened.current = true;
    if (mine && (phase === "stopped" || phase === "suspended")) orders.start();
  });

  const words = overlayFor(desktop, t);
  const canStart = phase === "stopped" || phase === "suspended" || phase === "failed";
  const overlay: Overlay | null = words && {
    ...words,
    action:
      canStart && !words.busy ? (
        <Button look="primary" icon="play" busy={orders.busy} onClick={orders.start}>
          {phase === "suspended" ? t.desktop.resume : t.desktop.start}
        </Button>
      ) : undefined,
  };

  return (
    <ConsoleScreen
      title={desktop.course_name}
      subtitle={mine ? readyText(desktop, t) : <strong>{t.console.watching(desktop.user_name)}</strong>}
      backTo={staff && !mine ? `/courses/${desktop.course}` : "/"}
      running={phase === "running"}
      viewOnly={watching}
      getTicket={() => desktops.ticket(desktop.id, watching)}
      overlay={overlay}
      tools={
        <>
          {!mine && (
            <button type="button" className="tool" aria-pressed={!watching} onClick={() => setWatching(!watching)}>
              {watching ? t.console.takePart : t.console.onlyWatch}
            </button>
          )}
          <button type="button" className="tool wide-only" aria-pressed={panel === "viewer"} onClick={() => toggle("viewer")}>
            {t.native.open}
          </button>
          <IconButton icon="clipboard" label={t.console.clipboard} aria-pressed={panel === "clipboard"} onClick={() => toggle("clipboard")} disabled={phase !== "running"} />
          <IconButton icon="reset" label={t.desktop.reset} busy={orders.busy} disabled={phase !== "running" && phase !== "failed"} onClick={() => void orders.reset()} />
          <IconButton icon="suspend" label={t.desktop.suspend} disabled={phase !== "running"} onClick={orders.suspend} />
        </>
      }
      putText={(text) => desktops.setClipboard(desktop.id, text)}
      panel={(type) =>
        panel === "clipboard" ? (
          <ClipboardPanel desktop={desktop.id} onType={watching ? undefined : type} onClose={() => setPanel(null)} />
        ) : (
          panel === "viewer" && <NativeViewerPanel desktop={desktop.id} viewOnly={watching} onClose={() => setPanel(null)} />
        )
      }
    />
  );
}

export function DesktopConsolePage({ id }: { id: string }) {
  const { t } = useWords();
  const desktop = useDesktop(id);
  if (desktop.data) return <Loaded key={id} desktop={desktop.data} />;
  return (
    <div className="console">
      <main className="console-stage" id="main">
        <div className="console-overlay" role="status">
          <div>
            {desktop.error ? (
              <>
                <p className="overlay-title">{errorText(desktop.error, t)}</p>
                <LinkButton to="/">{t.common.home}</LinkButton>
              </>
            ) : (
              <>
                <span className="spinner big" aria-hidden="true" />
                <p className="overlay-title">{t.common.loading}</p>
              </>
            )}
          </div>
        </div>
      </main>
    </div>
  );
}
