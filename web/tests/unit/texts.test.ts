import { describe, expect, it } from "vitest";
import { errorFrom } from "../../src/api/client";
import { dictionaries } from "../../src/i18n";
import { learn } from "../../src/i18n/texts";

const zh = dictionaries["zh-Hant"];

describe("texts that the API made", () => {
  it("are put into Chinese by their code, and what is filled in too", () => {
    const text = "waiting: nothing is heard of kvm1; it may still run there";
    const inner = "nothing is heard of kvm1; it may still run there";
    expect(zh.say(text)).toBe(text);
    learn([
      {
        step: text,
        wordings: {
          [text]: { code: "draft.waiting", params: { why: inner } },
          [inner]: { code: "desktop.host_silent", params: { host: "kvm1" } },
        },
      },
    ]);
    expect(zh.say(text)).toBe("等候中：kvm1 沒有回應；桌面可能仍在上面執行");
    expect(dictionaries.en.say(text)).toBe(text);
  });

  it("stay as they are when nothing is known of them", () => {
    expect(zh.say("something new")).toBe("something new");
    learn({ wordings: { odd: { code: "of.a.newer.controller" }, proto: { code: "constructor" } } });
    expect(zh.say("odd")).toBe("odd");
    expect(zh.say("proto")).toBe("proto");
    learn({ wordings: { torn: { code: "draft.waiting" } } });
    expect(zh.say("torn")).toBe("等候中：{why}");
  });

  it("are heard in errors as well", () => {
    const message = "only admins may do this";
    const body = JSON.stringify({ code: "forbidden", message, wordings: { [message]: { code: "right.admin" } } });
    expect(zh.say(errorFrom(403, body).message)).toBe("只有管理員可以執行此操作");
  });

  it("never go round in circles", () => {
    learn({ wordings: { round: { code: "draft.waiting", params: { why: "round" } } } });
    expect(zh.say("round")).toContain("round");
  });
});
