// The parts of the classroom that runs for the tests, as processes.
import { readFile, readdir } from "node:fs/promises";

/** Ends every process of a part; the classroom starts it again. `name`: `host`, `controller`. */
export async function restart(name: string, signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
  const up = process.env.LYCEUM_UP_PID;
  if (!up) throw new Error("LYCEUM_UP_PID is not set: run the tests through scripts/with-classroom");
  let ended = 0;
  for (const pid of (await readdir("/proc")).filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8");
      // After the name in brackets: state, parent.
      const parent = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
      const words = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
      if (parent !== up || !words.includes(name)) continue;
      process.kill(Number(pid), signal);
      ended += 1;
    } catch {
      // It ended meanwhile.
    }
  }
  return ended;
}
