// Server-sent events: "something of this kind changed". What is on the screen and
// stale is fetched again, at most a few times a second however many desktops start.
import type { QueryClient } from "@tanstack/react-query";
import { apiBase } from "./client";
import type { ChangeEvent } from "./types";

/** First words of the query keys that a change of this kind makes stale; `null`: all. */
export function staleKeys(kind: string): string[] | null {
  switch (kind) {
    case "desktop":
      return ["desktops", "courses"];
    case "course":
      return ["courses", "desktops"];
    case "image":
    case "draft":
    case "release":
      return ["images", "courses"];
    case "host":
      return ["hosts", "storage", "health"];
    case "operation":
      // A draft's machine tells of itself through the operations on it.
      return ["operations", "images"];
    case "user":
      return ["users", "courses", "me"];
    case "restore_point":
    case "restore":
      return ["restore-points"];
    case "network":
      return ["courses"];
    case "settings":
      return ["settings", "me"];
    case "plan":
      return ["plans", "allocation", "hosts"];
    case "timetable":
      return ["timetable"];
    default:
      return null;
  }
}

const BATCH_MS = 250;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

/** Listens until the returned function is called. `onLive` hears whether events arrive. */
export function listen(client: QueryClient, onLive: (live: boolean) => void): () => void {
  let source: EventSource | null = null;
  let stopped = false;
  let attempts = 0;
  let retry: ReturnType<typeof setTimeout> | undefined;
  let batch: ReturnType<typeof setTimeout> | undefined;
  let pending: Set<string> | "all" = new Set();

  const flush = () => {
    batch = undefined;
    const keys = pending;
    pending = new Set();
    if (keys === "all") void client.invalidateQueries();
    else for (const key of keys) void client.invalidateQueries({ queryKey: [key] });
  };
  const add = (keys: string[] | null) => {
    if (keys === null) pending = "all";
    else if (pending !== "all") for (const key of keys) pending.add(key);
    batch ??= setTimeout(flush, BATCH_MS);
  };

  const open = () => {
    if (stopped) return;
    source = new EventSource(`${apiBase}/events`);
    source.onopen = () => {
      onLive(true);
      // What happened while nobody listened is not known.
      if (attempts > 0) add(null);
      attempts = 0;
    };
    source.addEventListener("change", (event) => {
      try {
        add(staleKeys((JSON.parse((event as MessageEvent<string>).data) as ChangeEvent).kind));
      } catch {
        add(null);
      }
    });
    source.onerror = () => {
      onLive(false);
      // The browser's own reconnecting gives up on some answers; ours does not.
      source?.close();
      const wait = RETRY_MS[Math.min(attempts, RETRY_MS.length - 1)];
      attempts += 1;
      retry = setTimeout(open, wait);
    };
  };
  open();

  return () => {
    stopped = true;
    clearTimeout(retry);
    clearTimeout(batch);
    source?.close();
  };
}
