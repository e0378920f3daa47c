import { describe, expect, it } from "vitest";
import type { Occurrence } from "../../src/api/types";
import { boxes, dayText, hours, minutes, monday, shift } from "../../src/lib/week";

const lesson = (day: string, begin_clock: string, end_clock: string) => ({ day, begin_clock, end_clock }) as Occurrence;
const days = ["2026-11-23", "2026-11-24"].map((date) => ({ date, school: true, holiday: null }));

describe("a week's boxes", () => {
  it("puts lessons of one time side by side, and others below each other", () => {
    const [first, second] = boxes(days, [
      lesson("2026-11-23", "08:10", "10:00"),
      lesson("2026-11-23", "09:00", "09:30"),
      lesson("2026-11-23", "09:30", "11:00"),
      lesson("2026-11-23", "11:00", "12:00"),
      lesson("2026-11-24", "23:00", "01:00"),
    ]);
    expect(first?.boxes.map((b) => [b.lane, b.lanes])).toEqual([[0, 2], [1, 2], [1, 2], [0, 1]]);
    expect(second?.boxes.map((b) => [b.begin, b.end])).toEqual([[1380, 1440]]);
    expect(hours(boxes(days, []))).toEqual({ first: 8, last: 17 });
    expect(hours([second!])).toEqual({ first: 8, last: 24 });
  });

  it("counts days over the ends of months and years, and finds Mondays", () => {
    expect(shift("2026-12-31", 1)).toBe("2027-01-01");
    expect(shift("2024-03-01", -1)).toBe("2024-02-29");
    expect(["2026-11-23", "2026-11-26", "2026-11-29"].map(monday)).toEqual(["2026-11-23", "2026-11-23", "2026-11-23"]);
    expect(minutes("08:10")).toBe(490);
    expect(dayText("2026-11-23", "en-GB", "long")).toContain("23 November 2026");
    expect(dayText("2026-11-23", "zh-TW")).toContain("11/23");
  });
});
