// What a desktop is doing, as the page shows it. Pure: the words come from the dictionary.
import type { Desktop, Phase } from "../api/types";
import type { Dictionary } from "../i18n";
import { seconds } from "./format";

/** The colour family of a state. */
export type Tone = "idle" | "busy" | "good" | "kept" | "bad" | "unsure";

export function toneOf(phase: Phase): Tone {
  switch (phase) {
    case "stopped":
      return "idle";
    case "starting":
    case "suspending":
    case "stopping":
      return "busy";
    case "running":
      return "good";
    case "suspended":
      return "kept";
    case "failed":
      return "bad";
    case "unknown":
      return "unsure";
  }
}

/** Whether the phase will change by itself soon. */
export function isMoving(phase: Phase): boolean {
  return phase === "starting" || phase === "suspending" || phase === "stopping";
}

export interface Allowed {
  start: boolean;
  open: boolean;
  reset: boolean;
  suspend: boolean;
  stop: boolean;
}

/** Which orders make sense now. The API has the last word; this keeps buttons honest. */
export function allowed(phase: Phase): Allowed {
  switch (phase) {
    case "stopped":
      return { start: true, open: false, reset: false, suspend: false, stop: false };
    case "suspended":
      return { start: true, open: false, reset: true, suspend: false, stop: true };
    case "starting":
      return { start: false, open: true, reset: false, suspend: false, stop: true };
    case "running":
      return { start: false, open: true, reset: true, suspend: true, stop: true };
    case "suspending":
    case "stopping":
      return { start: false, open: false, reset: false, suspend: false, stop: false };
    case "failed":
      return { start: true, open: false, reset: true, suspend: false, stop: true };
    case "unknown":
      return { start: false, open: false, reset: false, suspend: false, stop: true };
  }
}

/** How a running desktop came up, for example "ready in 0.6 s, forked". */
export function readyText(d: Desktop, t: Dictionary): string | null {
  if (d.phase !== "running" || d.usable_ms === null || d.usable_ms === undefined) return null;
  return t.desktop.readyIn(seconds(d.usable_ms, t));
}

/** How it was last started, in a word. */
export function startedByText(d: Desktop, t: Dictionary): string | null {
  switch (d.started_by) {
    case "fork":
      return t.desktop.startedBy.fork;
    case "resume":
      return t.desktop.startedBy.resume;
    case "hand_out":
      return t.desktop.startedBy.handOut;
    case "cold":
      return t.desktop.startedBy.cold;
    default:
      return d.started_by ?? null;
  }
}

/** The sentence under a desktop's name: the phase in plain words and what is behind it. */
export function phaseSentence(d: Desktop, t: Dictionary): string {
  const plain = t.phaseSentence[d.phase];
  if (d.phase === "stopped" && d.persistence === "throwaway") return t.phaseSentence.stoppedFresh;
  if (d.phase === "running") return readyText(d, t) ?? plain;
  if (isMoving(d.phase) || d.phase === "failed") return d.detail ? t.say(d.detail) : plain;
  return plain;
}

/** Counts per phase, for the summary of a class. */
export function countPhases(desktops: readonly Desktop[]): Record<Phase, number> {
  const out: Record<Phase, number> = {
    stopped: 0,
    starting: 0,
    running: 0,
    suspending: 0,
    suspended: 0,
    stopping: 0,
    failed: 0,
    unknown: 0,
  };
  for (const d of desktops) out[d.phase] += 1;
  return out;
}
