// A week's lessons as boxes: when they begin and end within their day, and side by side where they
// are at the same time. Pure.
import type { Occurrence, WeekDay } from "../api/types";

export interface Box {
  occurrence: Occurrence;
  /** Minutes since midnight. */
  begin: number;
  end: number;
  /** Which of how many beside each other. */
  lane: number;
  lanes: number;
}

export interface DayBoxes {
  day: WeekDay;
  boxes: Box[];
}

export const DAY = 24 * 60;

/** `08:10` as minutes. */
export function minutes(clock: string): number {
  const [h = 0, m = 0] = clock.split(":").map(Number);
  return h * 60 + m;
}

/** The days with their boxes. What lasts beyond midnight ends there. */
export function boxes(days: WeekDay[], occurrences: Occurrence[]): DayBoxes[] {
  return days.map((day) => {
    const of = occurrences
      .filter((o) => o.day === day.date)
      .map((occurrence) => {
        const begin = minutes(occurrence.begin_clock);
        const end = minutes(occurrence.end_clock);
        return { occurrence, begin, end: end > begin ? end : DAY, lane: 0, lanes: 1 };
      })
      .sort((a, b) => a.begin - b.begin || b.end - a.end);
    let group: Box[] = [];
    let until = -1;
    const close = () => {
      const lanes = Math.max(1, ...group.map((b) => b.lane + 1));
      for (const box of group) box.lanes = lanes;
      group = [];
    };
    for (const box of of) {
      if (box.begin >= until) close();
      const taken = new Set(group.filter((b) => b.end > box.begin).map((b) => b.lane));
      while (taken.has(box.lane)) box.lane += 1;
      group.push(box);
      until = Math.max(until, box.end);
    }
    close();
    return { day, boxes: of };
  });
}

/** The hours to show: all that have lessons, and at least the middle of a school day. */
export function hours(days: DayBoxes[]): { first: number; last: number } {
  let first = 8;
  let last = 17;
  for (const { boxes } of days) {
    for (const box of boxes) {
      first = Math.min(first, Math.floor(box.begin / 60));
      last = Math.max(last, Math.ceil(box.end / 60));
    }
  }
  return { first, last };
}

/** A day some days later, `2026-11-23`. */
export function shift(date: string, days: number): string {
  const at = new Date(`${date}T00:00:00Z`);
  at.setUTCDate(at.getUTCDate() + days);
  return at.toISOString().slice(0, 10);
}

/** The Monday of a day's week. */
export function monday(date: string): string {
  return shift(date, -((new Date(`${date}T00:00:00Z`).getUTCDay() + 6) % 7));
}

/** A day as people read it. */
export function dayText(date: string, locale: string, style: "short" | "long" = "short"): string {
  const options: Intl.DateTimeFormatOptions =
    style === "short" ? { weekday: "short", day: "numeric", month: "numeric" } : { weekday: "long", day: "numeric", month: "long", year: "numeric" };
  return new Intl.DateTimeFormat(locale, { ...options, timeZone: "UTC" }).format(new Date(`${date}T00:00:00Z`));
}

/** A moment on the school's clock: which weekday, what time. */
export function momentText(at: number, locale: string, zone: string): string {
  return new Intl.DateTimeFormat(locale, { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone }).format(at);
}
