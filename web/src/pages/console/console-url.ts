import { apiBase } from "../../api/client";

/** The WebSocket's address, relative to the page. */
export function consoleUrl(ticket: string, base: string): string {
  const url = new URL(`${apiBase}/console/${encodeURIComponent(ticket)}`, base);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  return url.href;
}
