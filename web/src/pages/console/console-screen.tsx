// The console's frame: the picture, the tools at the top, and what is said over the picture.
import { useEffect, useRef, useState, type ReactNode } from "react";
import type { ConsoleTicket } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, IconButton } from "../../ui/controls";
import { Icon } from "../../ui/icons";
import { errorText, useToast } from "../../ui/toast";
import type { OverlayWords } from "./overlay";
import { keysymOf, needsShift, specialKeysym, typed } from "./touch-keys";
import type { Viewer } from "./notes";
import { useRfb, type LinkState } from "./use-rfb";

/** How long a program may take to fetch what is pasted. */
const PASTE_MS = 400;

export interface Overlay extends OverlayWords {
  action?: ReactNode;
}

interface Props {
  title: string;
  subtitle?: ReactNode;
  backTo: string;
  running: boolean;
  /** Only watch. */
  viewOnly?: boolean;
  getTicket: () => Promise<ConsoleTicket>;
  /** What to say when the machine is not running; `null` while it is. */
  overlay: Overlay | null;
  tools?: ReactNode;
  /** Puts text on the machine's clipboards; without it only keys can be typed. */
  putText?: (text: string) => Promise<unknown>;
  /** Beside the picture; gets a way to type any text. */
  panel?: (type: TypeText) => ReactNode;
}

/** Types a text, whatever characters it has: what the machine's keyboard may lack is pasted. */
export type TypeText = (text: string) => void;

/** Who else looks at this desktop. */
function Others({ viewers }: { viewers: Viewer[] }) {
  const { t } = useWords();
  if (viewers.length === 0) return null;
  const names = viewers.map((v) => (v.view_only ? t.console.watches(v.name) : v.name));
  return (
    <p className="console-others" role="status">
      <Icon name="people" size={16} /> {t.console.alsoHere(names.join(t.console.listComma))}
    </p>
  );
}

export function ConsoleScreen({ title, subtitle, backTo, running, viewOnly = false, getTicket, overlay, tools, putText, panel }: Props) {
  const { t } = useWords();
  const toast = useToast();
  const frame = useRef<HTMLDivElement>(null);
  const keys = useRef<HTMLTextAreaElement>(null);
  const { screen, frozen, rfb, state, viewers, error, retry } = useRfb(getTicket, running, viewOnly);
  const [tucked, setTucked] = useState(false);
  const [full, setFull] = useState(false);

  useEffect(() => {
    const changed = () => setFull(document.fullscreenElement !== null);
    document.addEventListener("fullscreenchange", changed);
    return () => document.removeEventListener("fullscreenchange", changed);
  }, []);
  useEffect(() => {
    const before = document.title;
    document.title = title;
    return () => {
      document.title = before;
    };
  }, [title]);

  // One after the other, or a key would overtake what is being pasted before it.
  const typing = useRef<Promise<unknown>>(Promise.resolve());
  const press = (...keys: [number, string | null][]) => {
    for (const [keysym, code] of keys) rfb.current?.sendKey(keysym, code, true);
    for (const [keysym, code] of keys.toReversed()) rfb.current?.sendKey(keysym, code, false);
  };
  const strike = (keysyms: number[]) => {
    for (const keysym of keysyms) {
      if (needsShift(keysym)) press([0xffe1, "ShiftLeft"], [keysym, null]);
      else press([keysym, null]);
    }
  };
  const paste = async (text: string) => {
    if (!putText) return strike([...text].map((c) => keysymOf(c) ?? 0));
    await putText(text);
    // What pastes in terminals as well as in forms.
    press([0xffe1, "ShiftLeft"], [0xff63, "Insert"]);
    // It is fetched by the program that shows it; the next one must not take its place before.
    await new Promise((resolve) => setTimeout(resolve, PASTE_MS));
  };
  const type: TypeText = (text) => {
    if (viewOnly) return;
    const what = typed(text);
    typing.current = typing.current
      .then(() => (typeof what === "string" ? paste(what) : strike(what)))
      .catch((cause: unknown) => toast("bad", errorText(cause, t)));
  };

  const focus = () => rfb.current?.focus({ preventScroll: true });
  const toggleFull = async () => {
    if (document.fullscreenElement) await document.exitFullscreen();
    else {
      await frame.current?.requestFullscreen();
      // Lets Esc and the like reach the desktop where the browser allows it.
      const keyboard = (navigator as Navigator & { keyboard?: { lock?: () => Promise<void> } }).keyboard;
      await keyboard?.lock?.().catch(() => undefined);
    }
    focus();
  };

  // While there is a picture, even an old one, a note is enough for what passes by itself.
  const pictured = state === "connected" || state === "reconnecting";
  const linkWords: Record<LinkState, Overlay | null> = {
    connected: null,
    waiting: { title: t.console.connecting, busy: true },
    connecting: { title: t.console.connecting, busy: true, detail: error ? errorText(error, t) : undefined },
    reconnecting: { title: t.console.reconnecting, detail: t.console.reconnectingHint, busy: true },
    idle: { title: t.console.idle, busy: false, action: <Button look="primary" onClick={retry}>{t.console.goOn}</Button> },
    over: { title: t.console.over, busy: false, action: <Button look="primary" onClick={retry}>{t.console.goOn}</Button> },
    full: { title: t.console.full, busy: false, action: <Button onClick={retry}>{t.common.retry}</Button> },
    refused: { title: error ? errorText(error, t) : t.console.denied, busy: false, action: <Button onClick={retry}>{t.common.retry}</Button> },
  };
  const shown = overlay ?? linkWords[state];
  const others = viewers.filter((v) => !v.you);

  return (
    <div className="console" ref={frame}>
      <header className={`console-bar ${tucked ? "tucked" : ""}`}>
        {tucked ? (
          <button type="button" className="console-tab" aria-label={t.console.showTools} title={t.console.showTools} aria-expanded={false} onClick={() => setTucked(false)}>
            <Icon name="chevron" size={16} />
          </button>
        ) : (
          <>
            <a className="icon-button" href={`#${backTo}`} aria-label={t.common.back} title={t.common.back}>
              <Icon name="back" />
            </a>
            <div className="console-title">
              <h1>{title}</h1>
              {subtitle && <p>{subtitle}</p>}
              <Others viewers={others} />
            </div>
            <div className="console-tools" role="toolbar" aria-label={t.console.toolbar}>
              <button
                type="button"
                className="tool"
                onClick={() => {
                  rfb.current?.sendCtrlAltDel();
                  focus();
                }}
                disabled={state !== "connected" || viewOnly}
              >
                {t.console.ctrlAltDel}
              </button>
              <IconButton icon="keyboard" label={t.console.keyboard} className="touch-only" onClick={() => keys.current?.focus()} />
              {tools}
              <IconButton icon={full ? "exitFullscreen" : "fullscreen"} label={full ? t.console.exitFullscreen : t.console.fullscreen} onClick={() => void toggleFull()} />
              <IconButton icon="chevron" className="up" label={t.console.hideTools} aria-expanded={true} onClick={() => setTucked(true)} />
            </div>
          </>
        )}
      </header>
      <main className="console-stage" id="main">
        <canvas className="console-frozen" ref={frozen} hidden aria-hidden="true" />
        <div className="console-screen" ref={screen} role="application" aria-label={t.console.screen(title)} data-state={state} />
        {shown && (
          <div className={`console-overlay ${pictured && shown.busy ? "quiet" : ""}`} role="status">
            <div>
              {shown.busy && <span className="spinner big" aria-hidden="true" />}
              <p className="overlay-title">{shown.title}</p>
              {shown.detail && <p>{shown.detail}</p>}
              {shown.action}
            </div>
          </div>
        )}
        {panel?.(type)}
        <textarea
          ref={keys}
          className="key-catcher"
          aria-label={t.console.keyboard}
          tabIndex={-1}
          autoCapitalize="none"
          autoCorrect="off"
          spellCheck={false}
          onKeyDown={(event) => {
            const keysym = specialKeysym(event.key);
            if (keysym === null) return;
            event.preventDefault();
            typing.current = typing.current.then(() => rfb.current?.sendKey(keysym, null));
          }}
          onInput={(event) => {
            const area = event.currentTarget;
            if (event.nativeEvent instanceof InputEvent && event.nativeEvent.isComposing) return;
            type(area.value);
            area.value = "";
          }}
          onCompositionEnd={(event) => {
            const area = event.currentTarget;
            type(area.value);
            area.value = "";
          }}
        />
      </main>
    </div>
  );
}
