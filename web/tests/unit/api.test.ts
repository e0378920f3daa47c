import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError, errorFrom, get, post, query, request, setCsrf, whenSignedOut } from "../../src/api/client";
import { staleKeys } from "../../src/api/events";
import { consoleUrl } from "../../src/pages/console/console-url";

function answer(status: number, body: string) {
  const fetch = vi.fn(async (_path: string, _init: RequestInit) => new Response(status === 204 ? null : body, { status }));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

afterEach(() => {
  vi.unstubAllGlobals();
  setCsrf("");
  whenSignedOut(() => {});
});

describe("errors", () => {
  it("are the API's own words", () => {
    const error = errorFrom(409, '{"code":"in_use","message":"v3 is used by two courses."}');
    expect(error).toMatchObject({ status: 409, code: "in_use", message: "v3 is used by two courses." });
  });
  it("of something in between keep what is readable", () => {
    expect(errorFrom(502, "upstream gone").message).toBe("HTTP 502: upstream gone");
    expect(errorFrom(502, "<html><body>Bad Gateway</body></html>").message).toBe("HTTP 502");
    expect(errorFrom(500, "").code).toBe("malformed");
    expect(errorFrom(500, '{"message":5}').code).toBe("malformed");
    expect(errorFrom(500, "null").code).toBe("malformed");
  });
  it("say when nothing was reached", async () => {
    vi.stubGlobal("fetch", async () => {
      throw new TypeError("failed to fetch");
    });
    await expect(get("health")).rejects.toMatchObject({ unreachable: true, status: 0 });
  });
  it("401 signs out, except where signing in is what was tried", async () => {
    const out = vi.fn();
    whenSignedOut(out);
    answer(401, '{"code":"not_signed_in","message":"Sign in."}');
    await expect(get("desktops")).rejects.toBeInstanceOf(ApiError);
    expect(out).toHaveBeenCalledTimes(1);
    await expect(request("POST", "session", {}, { quiet401: true })).rejects.toBeInstanceOf(ApiError);
    expect(out).toHaveBeenCalledTimes(1);
  });
});

describe("requests", () => {
  beforeEach(() => setCsrf("token-1"));
  it("that change something carry the CSRF token, others don't", async () => {
    const fetch = answer(200, "{}");
    await post("desktops/d-1/start", { cold: false });
    expect(fetch.mock.calls[0]?.[1].headers).toMatchObject({ "X-Lyceum-CSRF": "token-1", "Content-Type": "application/json" });
    await get("desktops");
    expect(fetch.mock.calls[1]?.[1].headers).not.toHaveProperty("X-Lyceum-CSRF");
  });
  it("understand an answer without a body", async () => {
    answer(204, "");
    await expect(post("session")).resolves.toBeUndefined();
  });
  it("leave out parameters that are not set", () => {
    expect(query({ course: "c-1", all: undefined, search: "", before: null })).toBe("?course=c-1");
    expect(query({})).toBe("");
    expect(query({ search: "a&b=c" })).toBe("?search=a%26b%3Dc");
  });
});

describe("events", () => {
  it("know what a change makes stale, and fetch everything when they don't", () => {
    expect(staleKeys("desktop")).toContain("desktops");
    expect(staleKeys("release")).toEqual(expect.arrayContaining(["images", "courses"]));
    expect(staleKeys("reset")).toBeNull();
    expect(staleKeys("something new")).toBeNull();
  });
});

describe("console address", () => {
  it("is a WebSocket beside the page, whatever the page's path and route", () => {
    expect(consoleUrl("t1", "https://school.example/")).toBe("wss://school.example/api/v1/console/t1");
    expect(consoleUrl("t1", "http://127.0.0.1:8080/#/console/d-1")).toBe("ws://127.0.0.1:8080/api/v1/console/t1");
    expect(consoleUrl("../x", "https://school.example/lab/")).toBe("wss://school.example/lab/api/v1/console/..%2Fx");
  });
});
