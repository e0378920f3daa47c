import { describe, expect, it } from "vitest";
import { dictionaries, pick } from "../../src/i18n";
import { en } from "../../src/i18n/en";

type Node = string | ((...args: never[]) => string) | { [key: string]: Node };

function* leaves(node: Node, path = ""): Generator<[string, Exclude<Node, object> | ((...args: never[]) => string)]> {
  if (typeof node === "object") for (const [key, value] of Object.entries(node)) yield* leaves(value, path ? `${path}.${key}` : key);
  else yield [path, node];
}

describe("dictionaries", () => {
  const english = new Map(leaves(en as unknown as Node));
  for (const [language, dictionary] of Object.entries(dictionaries)) {
    const own = new Map(leaves(dictionary as unknown as Node));
    it(`${language} has the keys of English, no more and no fewer`, () => {
      expect([...own.keys()].sort()).toEqual([...english.keys()].sort());
    });
    it(`${language} has no empty text and uses every argument`, () => {
      for (const [path, value] of own) {
        if (typeof value === "string") expect(value.trim(), path).not.toBe("");
        else {
          const marks = Array.from({ length: value.length }, (_, i) => `<${i}>`);
          const text = (value as (...args: string[]) => string)(...marks);
          for (const mark of marks) expect(text, `${language}: ${path}`).toContain(mark);
        }
      }
    });
  }

  it("Chinese is Chinese: no sentence was left in English", () => {
    for (const [path, value] of leaves(dictionaries["zh-Hant"] as unknown as Node)) {
      if (typeof value === "string" && value.length > 24 && !path.endsWith("example")) expect(value, path).toMatch(/[\u4e00-\u9fff]/);
    }
  });
});

describe("language of the browser", () => {
  it.each([
    [["zh-TW", "en"], "zh-Hant"],
    [["zh-Hant-HK"], "zh-Hant"],
    [["zh"], "zh-Hant"],
    [["en-US", "zh-TW"], "en"],
    [["de", "zh-TW"], "zh-Hant"],
    [["fr"], "en"],
    [[], "en"],
  ] as const)("%j", (wanted, language) => {
    expect(pick(wanted)).toBe(language);
  });
});
