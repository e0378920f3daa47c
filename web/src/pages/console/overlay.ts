// What the console says while there is no picture. Pure.
import type { Desktop } from "../../api/types";
import type { Dictionary } from "../../i18n";

export interface OverlayWords {
  title: string;
  detail?: string;
  /** Something moves; otherwise it waits for the person. */
  busy: boolean;
}

/** What is said over the picture for what the desktop is doing; `null`: it runs. */
export function overlayFor(d: Desktop, t: Dictionary): OverlayWords | null {
  switch (d.phase) {
    case "running":
      return null;
    case "starting":
      return { title: t.console.starting, detail: t.say(d.detail), busy: true };
    case "stopped":
      return d.desired === "running"
        ? { title: t.console.starting, detail: t.say(d.detail), busy: true }
        : { title: t.console.off, busy: false };
    case "suspended":
      return d.desired === "running"
        ? { title: t.console.starting, detail: t.say(d.detail), busy: true }
        : { title: t.console.suspended, busy: false };
    case "suspending":
      return { title: t.console.suspending, detail: t.say(d.detail), busy: true };
    case "stopping":
      return { title: d.desired === "running" ? t.console.resetting : t.console.stopping, detail: t.say(d.detail), busy: true };
    case "failed":
      return { title: t.console.failed, detail: t.say(d.detail), busy: false };
    case "unknown":
      return { title: t.console.unknown, detail: t.say(d.detail), busy: true };
  }
}
