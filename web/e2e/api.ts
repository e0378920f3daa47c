// The API as the page's session uses it.
import type { Page } from "playwright-core";
import { until } from "./screen";

/** Asks the API as the page would. */
export async function api(page: Page, method: string, path: string, body?: object): Promise<unknown> {
  const answer = await page.evaluate(
    async ([m, p, b]) => {
      const { csrf } = (await (await fetch("api/v1/session")).json()) as { csrf: string };
      const headers = { "Content-Type": "application/json", "X-Lyceum-CSRF": csrf };
      const response = await fetch(`api/v1/${p}`, m === "GET" ? {} : { method: m, headers, ...(b ? { body: b } : {}) });
      return { ok: response.ok, text: await response.text() };
    },
    [method, path, body ? JSON.stringify(body) : ""] as const,
  );
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.text}`);
  return answer.text ? JSON.parse(answer.text) : null;
}

/** Moves a desktop to the next host, waits until it is there, and says which that is. */
export async function moveOn(page: Page, id: string): Promise<string> {
  const hosts = ((await api(page, "GET", "hosts")) as { id: string }[]).map((host) => host.id);
  const { host } = (await api(page, "GET", `desktops/${id}`)) as { host: string };
  const to = hosts[(hosts.indexOf(host) + 1) % hosts.length] ?? "";
  const { operation } = (await api(page, "POST", `desktops/${id}/move`, { to })) as { operation: string };
  const ended = await until("the move", async () => {
    const now = (await api(page, "GET", `operations/${operation}`)) as { state: string };
    return now.state !== "running" && now;
  }, 120_000);
  if (ended.state !== "done") throw new Error(`from ${host} to ${to}: ${JSON.stringify(ended)}`);
  return to;
}
