// What the gateway says beside the picture, and by the code with which it closes. Pure.

/** Somebody who looks at the same desktop. */
export interface Viewer {
  name: string;
  view_only: boolean;
  you: boolean;
}

export interface Note {
  /** Whether there is a picture, or the last one stands still. */
  live?: boolean;
  viewers?: Viewer[];
}

export const CLOSED = {
  normal: 1000,
  notAllowed: 4003,
  notRunning: 4004,
  idle: 4008,
  full: 4009,
  lifetime: 4010,
} as const;

const isViewer = (v: unknown): v is Viewer =>
  typeof v === "object" && v !== null && typeof (v as Viewer).name === "string" && typeof (v as Viewer).view_only === "boolean" && typeof (v as Viewer).you === "boolean";

/** A text message of the gateway; `null` for one of another version. */
export function readNote(text: string): Note | null {
  try {
    const said = JSON.parse(text) as { link?: unknown; viewers?: unknown } | null;
    if (said?.link === "live" || said?.link === "waiting") return { live: said.link === "live" };
    if (Array.isArray(said?.viewers)) return { viewers: said.viewers.filter(isViewer) };
  } catch {
    // Not for us.
  }
  return null;
}

/** What to do when the gateway closed: connect again, wait for the machine, ask the API why, or wait for the person. */
export function afterClose(code: number): "again" | "off" | "refused" | "idle" | "full" | "over" {
  switch (code) {
    case CLOSED.notAllowed:
      return "refused";
    case CLOSED.notRunning:
      return "off";
    case CLOSED.idle:
      return "idle";
    case CLOSED.full:
      return "full";
    case CLOSED.lifetime:
      return "over";
    default:
      return "again";
  }
}
