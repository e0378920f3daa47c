// A roster file's effect as rows for the preview. Pure.
import type { RosterChange, RosterRow } from "../api/types";

export type RosterMark = "create" | "add" | "change" | "remove";

export interface RosterLine extends RosterRow {
  mark: RosterMark;
}

/** One line per person, in the order people read a change: new, changed, gone. A person whose
 * account is made also comes onto the roster; that is one line, not two. */
export function rosterLines(change: RosterChange): RosterLine[] {
  const created = new Set(change.create.map((row) => row.login));
  const mark = (rows: RosterRow[], mark: RosterMark) => rows.map((row) => ({ ...row, mark }));
  return [
    ...mark(change.create, "create"),
    ...mark(change.add.filter((row) => !created.has(row.login)), "add"),
    ...mark(change.change, "change"),
    ...mark(change.remove, "remove"),
  ];
}

/** Whether applying it would do anything and is possible. */
export function canApply(change: RosterChange): boolean {
  return change.problems.length === 0 && rosterLines(change).length > 0;
}

/** The links of new accounts as text to copy: one person per line. */
export function linksText(links: { login: string; path: string }[], origin: string): string {
  return links.map((l) => `${l.login}\t${absolute(l.path, origin)}`).join("\n");
}

/** A link path as the API gives it, as a whole address. */
export function absolute(path: string, origin: string): string {
  return origin.replace(/\/+$/, "") + (path.startsWith("/") ? path : `/${path}`);
}
