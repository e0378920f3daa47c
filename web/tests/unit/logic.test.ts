import { describe, expect, it } from "vitest";
import type { Course, Desktop, Image, Phase, Release, RosterChange } from "../../src/api/types";
import { en } from "../../src/i18n/en";
import { zhHant } from "../../src/i18n/zh-hant";
import { classSummary, clusterMemory, median } from "../../src/lib/cluster";
import { bytes, seconds, share, stopwatch } from "../../src/lib/format";
import { allowed, countPhases, isMoving, phaseSentence, toneOf } from "../../src/lib/phase";
import { seatsOf } from "../../src/lib/seats";
import { absolute, canApply, linksText, rosterLines } from "../../src/lib/roster";
import { clientName } from "../../src/lib/client-name";
import { overlayFor } from "../../src/pages/console/overlay";
import { keysymOf, needsShift, specialKeysym, typed } from "../../src/pages/console/touch-keys";
import { flowOf } from "../../src/pages/images/flow";
import { match } from "../../src/router";

const PHASES: Phase[] = ["stopped", "starting", "running", "suspending", "suspended", "stopping", "failed", "unknown"];

const desktop = (part: Partial<Desktop> = {}): Desktop => ({
  id: "d-1",
  course: "c-1",
  course_name: "Python",
  user: "u-1",
  user_name: "Ada",
  desired: "running",
  phase: "running",
  detail: "",
  size: { vcpus: 1, memory_mib: 768 },
  persistence: "throwaway",
  pss_kib: 40_000,
  cpu_percent: 1,
  read_bytes: 0,
  changed: 0,
  ...part,
});

describe("a desktop in words", () => {
  it("says how fast it came up", () => {
    expect(phaseSentence(desktop({ usable_ms: 612 }), en)).toBe("Ready in 0.61 s");
    expect(phaseSentence(desktop({ usable_ms: 612 }), zhHant)).toBe("0.61 秒就緒");
    expect(phaseSentence(desktop({ usable_ms: null }), en)).toBe("Ready to use.");
  });
  it("says the step while it moves and the reason when it failed", () => {
    expect(phaseSentence(desktop({ phase: "starting", detail: "Waiting for its address" }), en)).toBe("Waiting for its address");
    expect(phaseSentence(desktop({ phase: "failed", detail: "QEMU ended: signal 9" }), en)).toBe("QEMU ended: signal 9");
    expect(phaseSentence(desktop({ phase: "starting" }), en)).toBe("Coming up…");
  });
  it("is honest about what a stop keeps", () => {
    expect(phaseSentence(desktop({ phase: "stopped" }), en)).toContain("as new");
    expect(phaseSentence(desktop({ phase: "stopped", persistence: "persistent" }), en)).toContain("kept");
  });
  it("has words and a tone for every phase in every language", () => {
    for (const phase of PHASES)
      for (const t of [en, zhHant]) {
        expect(phaseSentence(desktop({ phase }), t)).not.toBe("");
        expect(t.phase[phase]).not.toBe("");
        expect(toneOf(phase)).toBeTruthy();
      }
  });
});

describe("orders", () => {
  it("never offer what can't be", () => {
    expect(allowed("running")).toEqual({ start: false, open: true, reset: true, suspend: true, stop: true });
    expect(allowed("stopped")).toEqual({ start: true, open: false, reset: false, suspend: false, stop: false });
    for (const phase of PHASES) {
      const can = allowed(phase);
      expect(can.start && can.open, phase).toBe(false);
      if (can.suspend) expect(phase).toBe("running");
      if (isMoving(phase) && phase !== "starting") expect(Object.values(can).some(Boolean), phase).toBe(false);
    }
  });
  it("count every desktop once", () => {
    const counts = countPhases(PHASES.map((phase) => desktop({ phase })));
    expect(Object.values(counts)).toEqual(PHASES.map(() => 1));
  });
});

describe("the console", () => {
  it("has something to say unless the desktop runs", () => {
    for (const phase of PHASES) {
      const words = overlayFor(desktop({ phase }), en);
      if (phase === "running") expect(words).toBeNull();
      else expect(words?.title).toBeTruthy();
    }
  });
  it("waits for a desktop that is ordered to run, and offers a start otherwise", () => {
    expect(overlayFor(desktop({ phase: "stopped", desired: "running" }), en)?.busy).toBe(true);
    expect(overlayFor(desktop({ phase: "stopped", desired: "stopped" }), en)?.busy).toBe(false);
    expect(overlayFor(desktop({ phase: "stopping", desired: "running" }), en)?.title).toBe(en.console.resetting);
  });
  it("turns what a touch keyboard writes into keysyms", () => {
    expect(keysymOf("a")).toBe(0x61);
    expect(keysymOf("é")).toBe(0xe9);
    expect(keysymOf("\n")).toBe(0xff0d);
    expect(keysymOf("中")).toBe(0x01004e2d);
    expect(keysymOf("\u0007")).toBeNull();
    expect(specialKeysym("Backspace")).toBe(0xff08);
    expect(specialKeysym("x")).toBeNull();
    // What every keyboard has is keys; the rest is pasted, in its place.
    expect(typed("a\nb")).toEqual([0x61, 0xff0d, 0x62]);
    expect(typed("a好é\nb")).toBe("a好é\nb");
    expect(typed("😀\r\n\u0007")).toBe("😀\n");
    expect(typed("")).toEqual([]);
    expect(typed("\tx")).toEqual([0xff09, 0x78]);
    // All that a US keyboard makes with Shift, and nothing else.
    const all = Array.from({ length: 95 }, (_, i) => 0x20 + i).filter(needsShift);
    expect(String.fromCharCode(...all)).toBe('!"#$%&()*+:<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ^_{|}~');
    expect([0xff0d, 0xff09, 0x0100_0041].filter(needsShift)).toEqual([]);
  });
});

describe("the seats of a class", () => {
  const course = { id: "c-1", name: "Python", size: { vcpus: 1, memory_mib: 768 }, persistence: "throwaway", created: 0 } as Course;
  const member = (user: string, login: string, role: "student" | "teacher" = "student") => ({ user, login, name: user, role });
  it("are one per student, made or not, and those of teachers that were made, in the roster's order", () => {
    const seats = seatsOf(course, [desktop({ id: "d-2", user: "u-2" }), desktop({ id: "d-9", user: "u-9" })], [member("u-10", "s10"), member("u-2", "s2"), member("u-9", "teacher", "teacher"), member("u-8", "other", "teacher")]);
    expect(seats.map((d) => [d.user, d.id, d.phase])).toEqual([
      ["u-2", "d-2", "running"],
      ["u-10", "", "stopped"],
      ["u-9", "d-9", "running"],
    ]);
  });
  it("leave out what is being deleted", () => {
    expect(seatsOf(course, [desktop({ desired: "absent" })], [])).toEqual([]);
  });
});

describe("a roster file", () => {
  const row = (login: string) => ({ login, name: login.toUpperCase(), role: "student" as const });
  const change = (part: Partial<RosterChange>): RosterChange => ({ create: [], add: [], change: [], remove: [], unchanged: 0, problems: [], links: [], ...part });
  it("shows each person once, a new account before all", () => {
    const lines = rosterLines(change({ create: [row("new")], add: [row("new"), row("old")], change: [row("ta")], remove: [row("gone")] }));
    expect(lines.map((l) => [l.login, l.mark])).toEqual([
      ["new", "create"],
      ["old", "add"],
      ["ta", "change"],
      ["gone", "remove"],
    ]);
  });
  it("is applied only when nothing is wrong with it and it does something", () => {
    expect(canApply(change({}))).toBe(false);
    expect(canApply(change({ unchanged: 30 }))).toBe(false);
    expect(canApply(change({ add: [row("a")] }))).toBe(true);
    expect(canApply(change({ add: [row("a")], problems: [{ line: 2, message: "no login" }] }))).toBe(false);
  });
  it("gives links that can be pasted and printed", () => {
    expect(linksText([{ login: "a", path: "/#/welcome/S1" }, { login: "b", path: "/#/welcome/S2" }], "https://school.example")).toBe("a\thttps://school.example/#/welcome/S1\nb\thttps://school.example/#/welcome/S2");
    expect(absolute("#/welcome/S", "https://x/")).toBe("https://x/#/welcome/S");
  });
});

describe("an image's way", () => {
  const image = (part: Partial<Image>): Image => ({ id: "i", name: "i", description: "", releases: [], draft: null, created: 0, ...part });
  const release = (version: number, part: Partial<Release> = {}): Release => ({ id: `r${version}`, image: "i", version, state: "offered", virtual_bytes: 0, bytes_on_disk: 0, used_by: [], note: "", sealed_by: "x", sealed_at: 0, ...part });
  const draft = (state: "empty" | "importing" | "ready" | "sealing") => ({ id: "d", image: "i", state, detail: "", phase: "stopped" as const, size: { vcpus: 1, memory_mib: 768 }, iso: false, owner: "x", created: 0 });
  const here = (i: Image) => flowOf(i, en).steps.find((s) => s.at === "here")?.name;
  it("has exactly one place where it is", () => {
    expect(here(image({}))).toBe("image");
    expect(here(image({ draft: draft("empty") }))).toBe("draft");
    expect(here(image({ draft: draft("ready"), releases: [release(1, { used_by: ["c"] })] }))).toBe("draft");
    expect(here(image({ draft: draft("sealing") }))).toBe("seal");
    expect(here(image({ releases: [release(1)] }))).toBe("release");
    expect(here(image({ releases: [release(1, { used_by: ["a course"] })] }))).toBe("use");
    expect(here(image({ releases: [release(1, { state: "retired" })] }))).toBe("image");
  });
  it("names the newest offered release, not the newest", () => {
    const steps = flowOf(image({ releases: [release(3, { state: "damaged" }), release(2), release(1)] }), en).steps;
    expect(steps.find((s) => s.name === "release")?.text).toBe("v2");
  });
});

describe("numbers", () => {
  it("read well", () => {
    expect([0, 999, 1024, 1536, 50 * 2 ** 20, 46 * 2 ** 30, 3.1e12].map(bytes)).toEqual(["0 B", "999 B", "1 KiB", "1.5 KiB", "50 MiB", "46 GiB", "2.82 TiB"]);
    expect([55, 612, 4100, 83_000].map((ms) => seconds(ms, en))).toEqual(["0.06 s", "0.61 s", "4.1 s", "83 s"]);
    expect([0, 7000, 750_000, 3_723_000].map(stopwatch)).toEqual(["0:00", "0:07", "12:30", "1:02:03"]);
    expect(share(5, 0)).toBe(0);
    expect(share(7, 5)).toBe(1);
  });
  it("sum up the classroom", () => {
    const host = { desktops_pss_mib: 900, nominal_mib: 9000, desktops: 12 } as never;
    expect(clusterMemory([host, host])).toEqual({ realMib: 1800, nominalMib: 18_000, desktops: 24, factor: 10 });
    expect(clusterMemory([]).factor).toBe(1);
    expect([median([]), median([3]), median([9, 1, 5]), median([1, 2])]).toEqual([null, 3, 5, 1.5]);
    const summary = classSummary([desktop({ usable_ms: 400 }), desktop({ usable_ms: 900 }), desktop({ phase: "stopped", usable_ms: 5 })]);
    expect(summary).toMatchObject({ running: 2, medianMs: 650, slowestMs: 900, nominalMib: 1536 });
  });
  it("short names of browsers", () => {
    expect(clientName("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36")).toBe("Chrome · Linux");
    expect(clientName("curl/8")).toBe("curl/8");
  });
});

describe("routes", () => {
  it("match whole paths and decode their parts", () => {
    expect(match("/", "/")).toEqual({});
    expect(match("/courses/:id", "/courses/c-1")).toEqual({ id: "c-1" });
    expect(match("/courses/:id", "/courses/c-1/")).toEqual({ id: "c-1" });
    expect(match("/courses/:id", "/courses")).toBeNull();
    expect(match("/courses/:id", "/courses/c-1/roster")).toBeNull();
    expect(match("/console/:id", "/console/draft/d-1")).toBeNull();
    expect(match("/welcome/:secret", "/welcome/a%2Fb")).toEqual({ secret: "a/b" });
    expect(match("/welcome/:secret", "/welcome/%E0%A4%A")).toBeNull();
  });
});
