import { describe, expect, it } from "vitest";
import { afterClose, readNote } from "../../src/pages/console/notes";

describe("what the gateway says beside the picture", () => {
  it("is read, and what is not understood is left out", () => {
    expect(readNote('{"link":"live"}')).toEqual({ live: true });
    expect(readNote('{"link":"waiting"}')).toEqual({ live: false });
    const ann = { name: "Ann", view_only: true, you: false };
    expect(readNote(JSON.stringify({ viewers: [ann, { name: 3 }, null] }))).toEqual({ viewers: [ann] });
    for (const text of ["", "null", "[]", '{"link":"other"}', '{"viewers":3}', "not json"]) expect(readNote(text)).toBeNull();
  });
  it("decides whether to connect again", () => {
    expect([1000, 1006, 1012, 4000].map(afterClose)).toEqual(["again", "again", "again", "again"]);
    expect([4003, 4004, 4008, 4009, 4010].map(afterClose)).toEqual(["refused", "off", "idle", "full", "over"]);
  });
});
