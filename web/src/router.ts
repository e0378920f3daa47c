// Forty lines instead of a dependency: the page has one level of routes, all after
// the `#`, so that the controller serves one file and nothing else (docs/adr/0003).
import { useSyncExternalStore } from "react";

/** The part after `#`, always beginning with `/`. */
function current(): string {
  const hash = window.location.hash.replace(/^#/, "");
  return hash.startsWith("/") ? hash : "/";
}

function subscribe(onChange: () => void): () => void {
  window.addEventListener("hashchange", onChange);
  return () => window.removeEventListener("hashchange", onChange);
}

export function useRoute(): string {
  return useSyncExternalStore(subscribe, current);
}

export const href = (path: string) => `#${path}`;

/** Goes to a route; `replace` leaves no trace in the history (used after a one-time link). */
export function go(path: string, replace = false): void {
  if (replace) {
    window.history.replaceState(null, "", href(path));
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    window.location.hash = path;
  }
}

/** Matches `/courses/:id` against a route and gives back the named parts. */
export function match(pattern: string, route: string): Record<string, string> | null {
  const want = pattern.split("/");
  const have = (route.split("?")[0] ?? "").replace(/\/+$/, "").split("/");
  if (have.length === 1) have.push("");
  if (want.length !== have.length) return null;
  const params: Record<string, string> = {};
  for (const [i, part] of want.entries()) {
    const got = have[i] ?? "";
    if (part.startsWith(":")) {
      if (!got) return null;
      try {
        params[part.slice(1)] = decodeURIComponent(got);
      } catch {
        return null;
      }
    } else if (part !== got) return null;
  }
  return params;
}
