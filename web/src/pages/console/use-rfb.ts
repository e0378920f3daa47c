// Keeps a picture of a machine on the screen for as long as it runs: a fresh ticket for each
// connection, again and again when the connection breaks, the last frame kept meanwhile.
import RFB from "@novnc/novnc";
import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import type { ConsoleTicket } from "../../api/types";
import { consoleUrl } from "./console-url";

export type LinkState =
  /** The machine does not run, so there is nothing to connect to. */
  | "waiting"
  /** First connection. */
  | "connecting"
  | "connected"
  /** It was connected and will be again; the last frame is on the screen. */
  | "reconnecting"
  /** The API refused for good. */
  | "refused";

const RETRY_MS = [150, 400, 800, 1500, 3000];

export function useRfb(getTicket: () => Promise<ConsoleTicket>, running: boolean) {
  const screen = useRef<HTMLDivElement>(null);
  const frozen = useRef<HTMLCanvasElement>(null);
  const rfb = useRef<RFB | null>(null);
  const ticketOf = useRef(getTicket);
  ticketOf.current = getTicket;
  const [state, setState] = useState<LinkState>("waiting");
  const [error, setError] = useState<Error | null>(null);
  const [round, setRound] = useState(0);

  useEffect(() => {
    if (!running) {
      setState((now) => (now === "connected" || now === "reconnecting" ? "reconnecting" : "waiting"));
      return;
    }
    let over = false;
    let attempt = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let canvas: HTMLCanvasElement | null = null;

    const keepFrame = () => {
      const to = frozen.current;
      if (!to || !canvas || canvas.width === 0) return;
      to.width = canvas.width;
      to.height = canvas.height;
      to.getContext("2d")?.drawImage(canvas, 0, 0);
      to.hidden = false;
    };
    const again = () => {
      if (over) return;
      const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
      attempt += 1;
      timer = setTimeout(() => void connect(), wait);
    };
    const connect = async () => {
      setState((now) => (now === "connected" || now === "reconnecting" ? "reconnecting" : "connecting"));
      let ticket: ConsoleTicket;
      try {
        ticket = await ticketOf.current();
      } catch (cause) {
        if (over) return;
        if (cause instanceof ApiError && (cause.status === 403 || cause.status === 404)) {
          setError(cause);
          setState("refused");
          return;
        }
        setError(cause instanceof Error ? cause : null);
        again();
        return;
      }
      const target = screen.current;
      if (over || !target) return;
      let link: RFB;
      try {
        link = new RFB(target, consoleUrl(ticket.ticket, document.baseURI), { shared: true });
      } catch (cause) {
        setError(cause instanceof Error ? cause : null);
        again();
        return;
      }
      link.scaleViewport = true;
      link.showDotCursor = true;
      link.background = "transparent";
      link.qualityLevel = 7;
      link.compressionLevel = 2;
      link.addEventListener("connect", () => {
        if (over) return;
        attempt = 0;
        canvas = target.querySelector("canvas");
        if (frozen.current) frozen.current.hidden = true;
        setError(null);
        setState("connected");
        link.focus({ preventScroll: true });
      });
      link.addEventListener("disconnect", () => {
        if (rfb.current === link) rfb.current = null;
        if (over) return;
        keepFrame();
        setState((now) => (now === "connected" ? "reconnecting" : now));
        again();
      });
      rfb.current = link;
    };
    void connect();

    return () => {
      over = true;
      clearTimeout(timer);
      keepFrame();
      rfb.current?.disconnect();
      rfb.current = null;
    };
  }, [running, round]);

  const retry = useCallback(() => setRound((n) => n + 1), []);
  return { screen, frozen, rfb, state, error, retry };
}
