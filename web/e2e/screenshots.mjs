// Pictures of the page for README and docs, taken of a running classroom.
//
//   BASE_URL=... ONE_TIME_PATH=/#/welcome/SECRET npm run screenshots    (or LOGIN and PASSWORD)
//   MOCK=1 npm run screenshots        made-up data
//
// OUT: folder for the pictures, default ../docs/pictures. ALL=1: every page in both languages, light and dark, not only what README shows.
// WHOLE=1: pages in their whole height, for looking at them. A classroom in which a class runs is shown as it
// is; in any other a course with students is made and started first: use one that may be thrown away.
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { openBrowser } from "./browser.mjs";

const out = process.env.OUT ?? fileURLToPath(new URL("../../docs/pictures", import.meta.url));
await mkdir(out, { recursive: true });

let mock;
let base = process.env.BASE_URL ?? "";
let oneTime = process.env.ONE_TIME_PATH ?? "";
if (process.env.MOCK) {
  const { startMock } = await import("../tests/mock/server.mjs");
  mock = await startMock(0);
  base = mock.url;
  oneTime = "/#/welcome/first";
}
if (!base) throw new Error("BASE_URL is not set: give the address of a running classroom, or MOCK=1 for made-up data");
base = base.replace(/\/+$/, "");

const browser = await openBrowser({ viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1.5 });
const { page } = browser;
page.setDefaultTimeout(60_000);

async function calm() {
  await page.evaluate(() => document.fonts.ready);
  await page.waitForFunction(() => document.querySelectorAll(".skeleton").length === 0);
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}
/** What README shows; everything else is taken with ALL=1 only. */
const SHOWN = ["class-en-light", "console", "hosts-en-dark", "overview-zh-dark", "image-en-light", "allocation-en-light", "timetable-zh-light", "restore-points-en-dark"];
async function picture(name) {
  if (!process.env.ALL && !SHOWN.includes(name)) return;
  await calm();
  // The document does not scroll, its main part does: for a whole page the window grows.
  if (process.env.WHOLE) {
    const tall = await page.evaluate(() => Math.max(document.documentElement.scrollHeight, ...[...document.querySelectorAll("main, .main")].map((m) => m.scrollHeight + 40)));
    await page.setViewportSize({ width: 1280, height: Math.max(800, tall) });
    await calm();
  }
  await page.screenshot({ path: `${out}/${name}.png`, animations: "disabled" });
  if (process.env.WHOLE) await page.setViewportSize({ width: 1280, height: 800 });
  console.log(`${out}/${name}.png`);
}
async function show(path) {
  await page.goto(`${base}/#${path}`);
  await page.locator("main h1, main h2").first().waitFor();
}
async function look(language, scheme) {
  await page.evaluate((l) => localStorage.setItem("lyceum.language", l), language);
  await page.emulateMedia({ colorScheme: scheme });
  await page.reload();
}

/** A class at work: a course with students, all started, and the teacher's own desktop. */
async function startClass() {
  const { user, csrf } = await read("session");
  const ask = async (method, path, body) => {
    const answer = await page.evaluate(
      async ([m, p, b, token]) => {
        const response = await fetch(`api/v1/${p}`, { method: m, headers: { "Content-Type": "application/json", "X-Lyceum-CSRF": token }, body: JSON.stringify(b) });
        return { ok: response.ok, text: await response.text() };
      },
      [method, path, body, csrf],
    );
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.text}`);
    return answer.text ? JSON.parse(answer.text) : null;
  };
  const image = (await read("images")).find((i) => i.releases.some((r) => r.state === "offered"));
  if (!image) throw new Error("the classroom has no image with a release: seal one first");
  const { id } = await ask("POST", "courses", { name: "Introduction to Python", image: image.id, persistence: "throwaway" });
  const names = ["王小明", "林雅婷", "陳冠宇", "張家豪", "李怡君", "黃柏翰", "吳欣怡", "劉俊傑", "Ada Lin", "Grace Chen", "Alan Wu", "許志偉"];
  const csv = ["login,name", ...names.map((name, i) => `s11301${String(i + 1).padStart(2, "0")},${name}`)].join("\n");
  await ask("PUT", `courses/${id}/roster`, { csv, create_accounts: true });
  const own = await ask("POST", "desktops", { course: id, user: user.id });
  await ask("POST", `courses/${id}/start`, {});
  await ask("POST", `desktops/${own.id}/start`, {});
  for (const end = Date.now() + 300_000; ; ) {
    const desktops = await read(`desktops?course=${id}`);
    if (desktops.length === names.length + 1 && desktops.every((d) => d.phase === "running")) break;
    if (Date.now() > end) throw new Error(`the class is not up after 300 s: ${desktops.map((d) => `${d.user_name} ${d.phase} ${d.detail}`).join("; ")}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  const lessons = [["mon", "08:10", "10:00"], ["tue", "13:10", "15:00"], ["thu", "10:10", "12:00"], ["fri", "08:10", "10:00"]];
  for (const [weekday, begin, end] of lessons) await ask("POST", "timetable/lessons", { course: id, weekday, begin, end, room: "Room 201" });
  await ask("POST", `courses/${id}/restore-points`, { note: "before the exercise" });
  await ask("POST", "plans", { mode: "power-saving" });
}

await page.goto(`${base}/#/`);
await page.locator("form").waitFor();
for (const [language, scheme, suffix] of [["en", "light", "en-light"], ["zh-Hant", "dark", "zh-dark"]]) {
  await look(language, scheme);
  await page.locator("form").waitFor();
  await picture(`sign-in-${suffix}`);
}
if (oneTime) {
  await page.goto(base + (oneTime.startsWith("/") ? oneTime : `/${oneTime}`));
  await page.locator("button.quiet").click();
} else {
  await page.fill("input[name=login]", process.env.LOGIN ?? "admin");
  await page.fill("input[name=password]", process.env.PASSWORD ?? "");
  await page.keyboard.press("Enter");
}
await page.locator(".page-head").waitFor();

const read = (path) => page.evaluate(async (p) => (await fetch(`api/v1/${p}`)).json(), path);
if (!mock && (await read("courses")).every((c) => c.running < 4)) await startClass();
const courses = await read("courses");
const course = [...courses].sort((a, b) => b.running - a.running)[0];
const images = await read("images");
const image = images.find((i) => i.releases.length > 0) ?? images[0];
const desktops = await read("desktops?all=true");
const me = (await read("session")).user.id;
const running = desktops.filter((d) => d.phase === "running");
const desktop = running.find((d) => d.user === me && d.course === course?.id) ?? running.find((d) => d.user === me) ?? running[0];

const screens = [
  ["my-desktops", "/"],
  ["overview", "/overview"],
  ["courses", "/courses"],
  course && ["class", `/courses/${course.id}`],
  course && ["roster", `/courses/${course.id}/roster`],
  ["images", "/images"],
  image && ["image", `/images/${image.id}`],
  ["hosts", "/hosts"],
  ["allocation", "/allocation"],
  ["timetable", "/timetable"],
  course && ["restore-points", `/courses/${course.id}/points`],
  course && ["course-settings", `/courses/${course.id}/settings`],
  ["work", "/operations"],
].filter(Boolean);
for (const [language, scheme, suffix] of [["en", "light", "en-light"], ["en", "dark", "en-dark"], ["zh-Hant", "light", "zh-light"], ["zh-Hant", "dark", "zh-dark"]]) {
  await look(language, scheme);
  for (const [name, path] of screens) {
    if (!process.env.ALL && !SHOWN.includes(`${name}-${suffix}`)) continue;
    await show(path);
    await picture(`${name}-${suffix}`);
  }
}
if (desktop) {
  await look("en", "light");
  await page.goto(`${base}/#/console/${desktop.id}`);
  await page.locator('.console-screen[data-state="connected"]').waitFor();
  // The first whole frame.
  await page.waitForFunction(() => {
    const canvas = document.querySelector(".console-screen canvas");
    return canvas && canvas.width > 0 && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((v, i) => i % 4 !== 3 && v > 40);
  });
  await picture("console");
} else console.log("no desktop runs: no picture of the console");

await look("en", "light");
await page.setViewportSize({ width: 390, height: 844 });
await show("/");
await picture("phone-my-desktops");
await page.setViewportSize({ width: 820, height: 1180 });
if (course) {
  await show(`/courses/${course.id}`);
  await picture("tablet-class");
}
await browser.close();
mock?.close();
