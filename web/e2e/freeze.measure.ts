// How long the picture of a busy demo desktop stands still in the browser while it is moved.
//
//   scripts/with-classroom --program target/release/lyceum --image .lyceum/images/demo.qcow2 --memory 768 -- \
//     npm --prefix web run --silent measure-freeze
//
// The desktop hashes 48 MB of random data and writes with fsync in one terminal, and another window writes a line
// every 30 ms, so that the picture never rests. The longest rest without a move is measured first: it is the guest's own.
import { afterAll, beforeAll, expect, it } from "vitest";
import { api, moveOn } from "./api";
import { openBrowser } from "./browser.mjs";
import { type Film, record, recorded, settled, until } from "./screen";

const MOVES = Number(process.env.MOVES ?? 10);
/** Seconds between a move and the next: one move is looked at, not a desktop that is thrown around. */
const PAUSE_S = Number(process.env.PAUSE_S ?? 5);
/** What writes all the while: by default one program. `while sleep .03; do date; done` starts two for each line. */
const TICKER = process.env.TICKER ?? "ping -i .03 127.0.0.1";
const base = (process.env.CLASSROOM_URL ?? "").replace(/\/+$/, "");
let browser: Awaited<ReturnType<typeof openBrowser>>;

beforeAll(async () => {
  if (!base || !process.env.ONE_TIME_PATH) throw new Error("run it through scripts/with-classroom, as said above");
  browser = await openBrowser({ viewport: { width: 1400, height: 950 } });
  browser.context.setDefaultTimeout(60_000);
});
afterAll(() => browser?.close());

/** Clicks a place of the desktop's picture, 1280 by 800. */
async function click(x: number, y: number) {
  const box = await browser.page.locator(".console-screen canvas").boundingBox();
  if (!box) throw new Error("there is no picture");
  await browser.page.mouse.click(box.x + (x * box.width) / 1280, box.y + (y * box.height) / 800);
}

async function watch(during: () => Promise<void>): Promise<Film> {
  await record(browser.page);
  await during();
  return recorded(browser.page);
}

it("stands still for a short time only", async () => {
  const { page } = browser;
  await page.goto(`${base}${process.env.ONE_TIME_PATH}`);
  await page.locator("button.quiet").click();
  await page.locator(".page-head").waitFor();
  const { user } = (await api(page, "GET", "session")) as { user: { id: string } };
  const image = await until("a release of the demo image", async () =>
    ((await api(page, "GET", "images")) as { id: string; releases: { state: string }[] }[]).find((i) => i.releases.some((r) => r.state === "offered")), 900_000);
  const course = (await api(page, "POST", "courses", { name: "Freeze", image: image.id, persistence: "throwaway" })) as { id: string };
  const { id } = (await api(page, "POST", "desktops", { course: course.id, user: user.id })) as { id: string };
  await page.goto(`${base}/#/console/${id}`);
  await page.locator('.console-screen[data-state="connected"]').waitFor({ timeout: 120_000 });
  await settled(page);
  // The panel's terminal, twice. Only keys without Shift: the driver sends a shifted character without it.
  for (const line of ["dd if=/dev/urandom of=b bs=1024k count=48; while sha256sum b; do dd if=b of=c bs=64k count=16 conv=fsync; done", TICKER]) {
    await click(92, 780);
    await page.waitForTimeout(8_000);
    await settled(page).catch(() => undefined);
    await page.keyboard.type(`${line}\n`, { delay: 60 });
  }
  await page.waitForTimeout(10_000);
  const alone = await watch(() => page.waitForTimeout(20_000));
  const rests: number[] = [];
  const orders: number[][] = [];
  const moving = await watch(async () => {
    const began = Date.now();
    for (let times = 0; times < MOVES; times++) {
      const ordered = Date.now() - began;
      await moveOn(page, id);
      orders.push([ordered, Date.now() - began]);
      await page.waitForTimeout(PAUSE_S * 1000);
    }
  });
  const moves = ((await api(page, "GET", "moves")) as { items: { way: string; stand_still_ms: number; total_ms: number; bytes: number }[] }).items;
  for (const move of moves) rests.push(move.stand_still_ms);
  rests.sort((a, b) => a - b);
  await page.screenshot({ path: process.env.PICTURE ?? "/dev/null", type: "png" });
  console.log(
    JSON.stringify({
      moves: moves.length,
      ways: [...new Set(moves.map((move) => move.way))],
      stand_still_ms: { median: rests[rests.length >> 1], longest: rests.at(-1) },
      total_ms: moves.map((move) => move.total_ms),
      mib: moves.map((move) => move.bytes >> 20),
      picture_still_ms: { without_moves: alone.stillMs, with_moves: moving.stillMs },
      orders_ms: orders,
      rest_ends_ms: moving.ends,
      rests_ms: { without_moves: alone.rests, with_moves: moving.rests },
      frames: moving.frames,
      blank: moving.blank,
    }),
  );
  expect(moving.frames).toBeGreaterThan(100);
  expect(moving.blank).toBe(0);
}, 1_800_000);
