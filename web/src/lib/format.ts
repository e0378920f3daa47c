// Numbers as people read them.
import type { Dictionary } from "../i18n";
import type { MachineSize } from "../api/types";

/** Milliseconds as seconds, precise where it matters: 0.62 s, 4.1 s, 83 s. */
export function seconds(ms: number, t: Dictionary): string {
  const s = ms / 1000;
  const text = s < 1 ? s.toFixed(2) : s < 10 ? s.toFixed(1) : String(Math.round(s));
  return t.unit.seconds(text);
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with three significant digits at most. */
export function bytes(n: number): string {
  let value = Math.max(0, n);
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${trimZeros(value.toFixed(digits))} ${UNITS[unit]}`;
}

const trimZeros = (text: string) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);

export const mib = (n: number) => bytes(n * 1024 * 1024);
export const kib = (n: number) => bytes(n * 1024);

export function percent(n: number, digits = 0): string {
  return `${(Number.isFinite(n) ? n : 0).toFixed(digits)}%`;
}

/** A share of a whole, 0 when there is no whole. */
export function share(part: number, whole: number): number {
  return whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
}

export function sizeText(size: MachineSize, t: Dictionary): string {
  return `${t.unit.vcpus(size.vcpus)} · ${mib(size.memory_mib)}`;
}

export function clock(ms: number, locale: string): string {
  return new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(ms);
}

/** The time of day; the date too when it is not today. */
export function minute(ms: number, locale: string, now = Date.now()): string {
  const today = new Date(ms).toDateString() === new Date(now).toDateString();
  return new Intl.DateTimeFormat(locale, today ? { hour: "2-digit", minute: "2-digit" } : { dateStyle: "medium", timeStyle: "short" }).format(ms);
}

export function dateTime(ms: number, locale: string): string {
  return new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }).format(ms);
}

export function day(ms: number, locale: string): string {
  return new Intl.DateTimeFormat(locale, { dateStyle: "medium" }).format(ms);
}

/** "3 minutes ago", in the page's language. */
export function ago(ms: number, now: number, locale: string): string {
  const format = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
  const s = Math.round((ms - now) / 1000);
  const a = Math.abs(s);
  if (a < 60) return format.format(s, "second");
  if (a < 3600) return format.format(Math.round(s / 60), "minute");
  if (a < 86_400) return format.format(Math.round(s / 3600), "hour");
  return format.format(Math.round(s / 86_400), "day");
}

/** How long something took or has been going on: 0:07, 12:30, 1:02:03. */
export function stopwatch(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600);
  const rest = `${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  return h > 0 ? `${h}:${rest}` : rest.replace(/^0/, "");
}

/** The first part of a long hash. */
export const shortHash = (id: string) => (id.length > 16 ? id.slice(0, 12) : id);
