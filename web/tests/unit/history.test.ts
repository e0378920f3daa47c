import { expect, test } from "vitest";
import { pieces } from "../../src/pages/hosts/history";
import type { Sample } from "../../src/api/types";

const MINUTE = 60_000;
const sample = (minute: number, cpu_percent: number): Sample => ({ at: minute * MINUTE, cpu_percent, memory_kib: 0, desktops: 0 });

test("a line is broken where nothing was measured", () => {
  const lines = pieces([sample(0, 0), sample(1, 50), sample(5, 100), sample(6, 100)], 1, (s) => s.cpu_percent, 100);
  expect(lines).toHaveLength(2);
  expect(lines[0]).toBe("0.0,118.0 80.0,60.0");
  expect(lines[1]).toBe("400.0,2.0 480.0,2.0");
});

test("what could not be measured is no nought", () => {
  const lines = pieces([sample(0, 1), sample(1, 2)], 1, (s) => s.sent_rate, 100);
  expect(lines).toEqual([]);
});
