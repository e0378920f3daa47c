// Looking at the picture of a desktop: what is on the canvas, and how much of it changed.
import type { Page } from "playwright-core";

export interface Picture {
  width: number;
  height: number;
  /** Brightness of each pixel, 0 to 255, base64. */
  luma: string;
}

/** The picture as it is now; `null` while there is none. */
export async function look(page: Page): Promise<Picture | null> {
  return page.evaluate(() => {
    const canvas = document.querySelector<HTMLCanvasElement>(".console-screen canvas");
    const context = canvas?.getContext("2d");
    if (!canvas || !context || canvas.width === 0) return null;
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const out = new Uint8Array(data.length / 4);
    for (let i = 0; i < out.length; i++) out[i] = ((data[4 * i] ?? 0) * 3 + (data[4 * i + 1] ?? 0) * 6 + (data[4 * i + 2] ?? 0)) / 10;
    let text = "";
    for (let i = 0; i < out.length; i += 8192) text += String.fromCharCode(...out.subarray(i, i + 8192));
    return { width: canvas.width, height: canvas.height, luma: btoa(text) };
  });
}

/** How many pixels differ clearly; everything when the size differs. */
export function difference(a: Picture, b: Picture): number {
  if (a.width !== b.width || a.height !== b.height) return Math.max(a.width * a.height, b.width * b.height);
  const x = Buffer.from(a.luma, "base64");
  const y = Buffer.from(b.luma, "base64");
  let count = 0;
  for (let i = 0; i < x.length; i++) if (Math.abs((x[i] ?? 0) - (y[i] ?? 0)) > 40) count += 1;
  return count;
}

/** Asks until the answer is there, or says what was waited for. */
export async function until<T>(what: string, ask: () => Promise<T | null | undefined | false>, withinMs = 60_000): Promise<T> {
  const end = Date.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited ${withinMs / 1000} s in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A picture that stays as it is for a moment: nothing is being drawn any more. */
export function settled(page: Page): Promise<Picture> {
  let before: Picture | null = null;
  let quiet = 0;
  return until("a picture that is not being drawn any more", async () => {
    const now = await look(page);
    // A blinking cursor is no drawing.
    quiet = before && now && difference(before, now) < 400 ? quiet + 1 : 0;
    before = now;
    return quiet >= 4 ? now : null;
  });
}

export interface Film {
  frames: number;
  /** Frames that showed nothing. */
  blank: number;
  /** The longest time without a change in the picture, in milliseconds. */
  stillMs: number;
  /** Times without a change of more than a fifth of a second, in milliseconds, in their order. */
  rests: number[];
  /** When each of them ended, in milliseconds since the recording began. */
  ends: number[];
}

/** Looks at every frame that the browser shows of the console, until [`recorded`] is called. */
export async function record(page: Page): Promise<void> {
  await page.evaluate(() => {
    const small = document.createElement("canvas");
    [small.width, small.height] = [160, 100];
    const context = small.getContext("2d", { willReadFrequently: true });
    const film = { frames: 0, blank: 0, stillMs: 0, rests: [] as number[], ends: [] as number[], on: true };
    const began = performance.now();
    let before = new Uint8ClampedArray();
    let changed = performance.now();
    (window as unknown as { film: typeof film }).film = film;
    const look = () => {
      if (!film.on || !context) return;
      const shown = [...document.querySelectorAll<HTMLCanvasElement>(".console-frozen, .console-screen canvas")].filter((c) => !c.hidden && c.width > 0);
      context.clearRect(0, 0, 160, 100);
      for (const canvas of shown) context.drawImage(canvas, 0, 0, 160, 100);
      const { data } = context.getImageData(0, 0, 160, 100);
      let lit = 0;
      for (let i = 0; i < data.length; i += 4) if (Math.max(data[i] ?? 0, data[i + 1] ?? 0, data[i + 2] ?? 0) > 12) lit += 1;
      film.frames += 1;
      if (before.length !== data.length || before.some((value, i) => value !== data[i])) {
        const rest = Math.round(performance.now() - changed);
        if (rest > 200) {
          film.rests.push(rest);
          film.ends.push(Math.round(performance.now() - began));
        }
        [before, changed] = [data, performance.now()];
      }
      film.stillMs = Math.max(film.stillMs, performance.now() - changed);
      if (lit < 5) film.blank += 1;
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
}

/** What was seen. Fails when the page was loaded anew. */
export async function recorded(page: Page): Promise<Film> {
  return page.evaluate(() => {
    const { film } = window as unknown as { film: Film & { on: boolean } };
    film.on = false;
    return { frames: film.frames, blank: film.blank, stillMs: Math.round(film.stillMs), rests: film.rests, ends: film.ends };
  });
}
