// Keeps a picture of a machine on the screen. The gateway keeps our connection while the machine
// behind it is reset, resumed or moved, and says when the picture stands still. Should the connection
// itself break, a new one is made with a fresh ticket; the last frame is kept meanwhile.
import RFB from "@novnc/novnc";
import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import type { ConsoleTicket } from "../../api/types";
import { beginStreamsWholly } from "./fresh-streams";
import { CLOSED, afterClose, readNote, type Viewer } from "./notes";
import { consoleUrl } from "./console-url";

export type LinkState =
  /** The machine does not run, so there is nothing to connect to. */
  | "waiting"
  /** First connection. */
  | "connecting"
  | "connected"
  /** There was a picture and there will be again; the last frame is on the screen. */
  | "reconnecting"
  /** Nothing was done for hours; the last frame is on the screen. */
  | "idle"
  /** It was open for as long as one may be; the last frame is on the screen. */
  | "over"
  /** Too many look at it already. */
  | "full"
  /** The API refused for good. */
  | "refused";

const RETRY_MS = [150, 400, 800, 1500, 3000];
/** A picture that has come may still be being decoded when its news arrives. */
const DECODE_MS = 150;

export function useRfb(getTicket: () => Promise<ConsoleTicket>, running: boolean, viewOnly: boolean) {
  const screen = useRef<HTMLDivElement>(null);
  const frozen = useRef<HTMLCanvasElement>(null);
  const rfb = useRef<RFB | null>(null);
  const ticketOf = useRef(getTicket);
  ticketOf.current = getTicket;
  const [link, setLink] = useState<LinkState>("waiting");
  const [live, setLive] = useState(false);
  const pictured = useRef(false);
  const [viewers, setViewers] = useState<Viewer[]>([]);
  const [error, setError] = useState<Error | null>(null);
  const [round, setRound] = useState(0);
  // Once there is a connection it stays, whatever becomes of the machine.
  const [wanted, setWanted] = useState(running);
  useEffect(() => {
    if (running) setWanted(true);
  }, [running]);

  useEffect(() => {
    if (!wanted) {
      setLink((now) => (now === "connected" || now === "reconnecting" ? "reconnecting" : "waiting"));
      return;
    }
    let over = false;
    let attempt = 0;
    let denied = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let thaw: ReturnType<typeof setTimeout> | undefined;
    let canvas: HTMLCanvasElement | null = null;
    let socket: WebSocket | null = null;

    const keepFrame = () => {
      clearTimeout(thaw);
      const to = frozen.current;
      if (!to || !canvas || canvas.width === 0) return;
      to.width = canvas.width;
      to.height = canvas.height;
      to.getContext("2d")?.drawImage(canvas, 0, 0);
      to.hidden = false;
      canvas = null;
    };
    const again = () => {
      if (over) return;
      clearTimeout(timer);
      timer = setTimeout(() => void connect(), RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
      attempt += 1;
    };
    const lost = () => {
      setLive(false);
      setViewers([]);
      setLink((now) => (now === "connected" ? "reconnecting" : now));
    };
    const connect = async () => {
      setLink((now) => (now === "connected" || now === "reconnecting" || now === "idle" || now === "over" ? "reconnecting" : "connecting"));
      let ticket: ConsoleTicket;
      try {
        ticket = await ticketOf.current();
      } catch (cause) {
        if (over) return;
        if (cause instanceof ApiError && (cause.status === 403 || cause.status === 404)) {
          setError(denied ? null : cause);
          setLink("refused");
          return;
        }
        setError(cause instanceof Error ? cause : null);
        again();
        return;
      }
      const target = screen.current;
      if (over || !target) return;
      socket = new WebSocket(consoleUrl(ticket.ticket, document.baseURI), "lyceum");
      open(socket, target);
    };
    const open = (own: WebSocket, target: HTMLDivElement) => {
      // Before noVNC listens: what is said beside the picture is not for it.
      own.addEventListener("message", (event: MessageEvent<unknown>) => {
        if (typeof event.data !== "string") return;
        event.stopImmediatePropagation();
        const note = readNote(event.data);
        if (over || !note) return;
        if (note.viewers) setViewers(note.viewers);
        if (note.live !== undefined) {
          setLive(note.live);
          if (note.live) {
            pictured.current = true;
            denied = false;
            attempt = 0;
            thaw = setTimeout(() => {
              if (frozen.current) frozen.current.hidden = true;
            }, DECODE_MS);
          }
        }
      });
      own.addEventListener("close", (event) => {
        if (over || socket !== own) return;
        keepFrame();
        lost();
        const next = afterClose(event.code);
        if (next === "again") again();
        else if (next === "off") setWanted(false);
        else if (next === "refused") {
          // Whoever is not signed in any more is asked to; for others it is over.
          denied = true;
          attempt = 0;
          again();
        } else setLink(next);
      });
      // noVNC begins once the connection stands: one that never does is not its to complain of.
      own.addEventListener("open", () => {
        if (over || socket !== own) return;
        const view = new RFB(target, own, { shared: true });
        beginStreamsWholly(view);
        view.viewOnly = viewOnly;
        view.scaleViewport = true;
        view.showDotCursor = !viewOnly;
        view.background = "transparent";
        view.qualityLevel = 7;
        view.compressionLevel = 2;
        view.addEventListener("connect", () => {
          if (over) return;
          canvas = target.querySelector("canvas");
          setError(null);
          setLink("connected");
          if (!viewOnly) view.focus({ preventScroll: true });
        });
        view.addEventListener("disconnect", () => {
          if (rfb.current === view) rfb.current = null;
        });
        rfb.current = view;
      });
    };
    void connect();

    return () => {
      over = true;
      clearTimeout(timer);
      keepFrame();
      setLive(false);
      if (rfb.current) rfb.current.disconnect();
      else socket?.close(CLOSED.normal);
      rfb.current = null;
    };
  }, [wanted, round, viewOnly]);

  const retry = useCallback(() => setRound((n) => n + 1), []);
  const state: LinkState = link === "connected" && !live ? (pictured.current ? "reconnecting" : "connecting") : link;
  return { screen, frozen, rfb, state, viewers, error, retry };
}
