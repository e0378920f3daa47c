// The one way requests leave the page: JSON in, JSON out, one form of error.
import { learn } from "../i18n/texts";
import type { ApiErrorBody } from "./types";

/** What the API answered instead of what was asked for. `message` is meant for a person. */
export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 when the controller was not reached. */
    readonly status: number,
    /** The API's word for programs, for example `no_room`; `unreachable` and `malformed` are ours. */
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }

  get unauthenticated(): boolean {
    return this.status === 401;
  }
  get unreachable(): boolean {
    return this.code === "unreachable";
  }
}

/** Makes an [`ApiError`] out of whatever a failed request brought back. */
export function errorFrom(status: number, body: string): ApiError {
  try {
    const parsed = JSON.parse(body) as Partial<ApiErrorBody> | null;
    if (parsed && typeof parsed.message === "string" && typeof parsed.code === "string") {
      learn(parsed);
      return new ApiError(status, parsed.code, parsed.message);
    }
  } catch {
    // Not JSON: a proxy in between has spoken, not the API.
  }
  const text = body.trim();
  const short = text && !text.startsWith("<") ? `: ${text.slice(0, 200)}` : "";
  return new ApiError(status, "malformed", `HTTP ${status}${short}`);
}

let csrf = "";
let onUnauthenticated: () => void = () => {};

/** Sets the token every changing request carries. It lives in memory only. */
export function setCsrf(token: string): void {
  csrf = token;
}

/** What happens when a request finds that nobody is signed in any more. */
export function whenSignedOut(handler: () => void): void {
  onUnauthenticated = handler;
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** Relative, so that the page works below any path. */
export const apiBase = "api/v1";

/** Headers of a changing request. */
export function changeHeaders(): Record<string, string> {
  return csrf ? { "X-Lyceum-CSRF": csrf } : {};
}

export async function request<T>(
  method: Method,
  path: string,
  body?: unknown,
  options: { quiet401?: boolean; signal?: AbortSignal } = {},
): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (method !== "GET") Object.assign(headers, changeHeaders());
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  let text: string;
  try {
    response = await fetch(`${apiBase}/${path}`, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: options.signal ?? null,
    });
    text = await response.text();
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, "unreachable", "");
  }
  if (!response.ok) {
    const error = errorFrom(response.status, text);
    if (error.unauthenticated && !options.quiet401) onUnauthenticated();
    throw error;
  }
  if (text === "") return undefined as T;
  try {
    const answer = JSON.parse(text) as T;
    learn(answer);
    return answer;
  } catch {
    throw errorFrom(response.status, text);
  }
}

export const get = <T>(path: string, signal?: AbortSignal) =>
  request<T>("GET", path, undefined, signal ? { signal } : {});
export const post = <T>(path: string, body?: unknown) => request<T>("POST", path, body);
export const put = <T>(path: string, body?: unknown) => request<T>("PUT", path, body);
export const patch = <T>(path: string, body: unknown) => request<T>("PATCH", path, body);
export const del = <T = void>(path: string) => request<T>("DELETE", path);

/** A query string without the parameters that are not set. */
export function query(params: Record<string, string | number | boolean | null | undefined>): string {
  const out = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") out.set(key, String(value));
  }
  const text = out.toString();
  return text ? `?${text}` : "";
}

/** Sends a file with progress; `fetch` can't report how much of a body has left. */
export function upload<T>(
  path: string,
  file: Blob,
  onProgress: (sent: number, total: number) => void,
  signal: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("PUT", `${apiBase}/${path}`);
    xhr.setRequestHeader("Content-Type", "application/octet-stream");
    for (const [name, value] of Object.entries(changeHeaders())) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => onProgress(event.loaded, file.size);
    xhr.onerror = () => reject(new ApiError(0, "unreachable", ""));
    xhr.onabort = () => reject(new DOMException("aborted", "AbortError"));
    xhr.onload = () => {
      if (xhr.status >= 200 && xhr.status < 300) {
        try {
          resolve((xhr.responseText ? JSON.parse(xhr.responseText) : undefined) as T);
        } catch {
          reject(errorFrom(xhr.status, xhr.responseText));
        }
      } else {
        const error = errorFrom(xhr.status, xhr.responseText);
        if (error.unauthenticated) onUnauthenticated();
        reject(error);
      }
    };
    signal.addEventListener("abort", () => xhr.abort(), { once: true });
    xhr.send(file);
  });
}
