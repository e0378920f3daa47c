import { deflateSync, constants } from "node:zlib";
import { describe, expect, it } from "vitest";
import { beginStreamsWholly } from "../../src/pages/console/fresh-streams";

const path = "../../node_modules/@novnc/novnc/core/inflator.js";
interface Inflator {
  setInput(data: Uint8Array | null): void;
  inflate(expected: number): Uint8Array;
  reset(): void;
}

describe("a compression stream that begins anew", () => {
  it("is read on and on", async () => {
    const { default: Inflate } = (await import(path)) as { default: new () => Inflator };
    const inflator = new Inflate();
    beginStreamsWholly({ _decoders: { 7: { _zlibs: [inflator] }, 0: {} } } as never);
    const text = Array.from({ length: 400 }, (_, i) => `line ${i * 7919}`).join("\n");
    for (let round = 0; round < 3; round++) {
      // In pieces of 500 bytes of what comes out: later ones refer to earlier ones.
      const packed = deflateSync(text + text, { finishFlush: constants.Z_SYNC_FLUSH });
      let out = "";
      inflator.setInput(packed);
      const total = 2 * text.length;
      for (let at = 0; at < total; at += 500) out += Buffer.from(inflator.inflate(Math.min(500, total - at))).toString();
      inflator.setInput(null);
      expect(out).toBe(text + text);
      inflator.reset();
    }
  });
});
