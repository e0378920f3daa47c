// Where an image is on its way from a name to a release in use. Pure.
import type { Image, Release } from "../../api/types";
import type { Dictionary } from "../../i18n";

export type StepName = "image" | "draft" | "seal" | "release" | "use";

export interface Step {
  name: StepName;
  /** Behind us, where we are, or still ahead. */
  at: "done" | "here" | "ahead";
  text: string;
}

/** The newest release that new desktops may start from. */
export function newestOffered(image: Image): Release | undefined {
  return image.releases.filter((r) => r.state === "offered").sort((a, b) => b.version - a.version)[0];
}

export function flowOf(image: Image, t: Dictionary): { steps: Step[]; next: string } {
  const s = t.images.stepText;
  const { draft } = image;
  const newest = newestOffered(image);
  const users = new Set(image.releases.flatMap((r) => r.used_by)).size;
  let here: StepName;
  let next: string;
  if (draft?.state === "sealing") [here, next] = ["seal", t.images.nextSealing];
  else if (draft?.state === "ready") [here, next] = ["draft", t.images.nextReady];
  else if (draft?.state === "importing") [here, next] = ["draft", t.images.nextImporting];
  else if (draft) [here, next] = ["draft", t.images.nextEmpty];
  else if (!newest) [here, next] = ["image", t.images.nextNoDraftNew];
  else [here, next] = [users > 0 ? "use" : "release", t.images.nextNoDraft];

  const draftText = !draft
    ? s.draftNone
    : { empty: s.draftEmpty, importing: s.draftImporting, ready: s.draftReady, sealing: s.draftReady }[draft.state];
  const texts: Record<StepName, string> = {
    image: s.image,
    draft: draftText,
    seal: draft?.state === "sealing" ? s.sealing : newest && !draft ? s.sealed : s.sealIdle,
    release: newest ? s.version(newest.version) : s.noRelease,
    use: users > 0 ? s.usedBy(users) : s.unused,
  };
  // A release that exists is reached even while the next draft is being made.
  const reached: Record<StepName, boolean> = {
    image: true,
    draft: draft ? draft.state === "ready" || draft.state === "sealing" : newest !== undefined,
    seal: newest !== undefined && !draft,
    release: newest !== undefined,
    use: users > 0,
  };
  const names: StepName[] = ["image", "draft", "seal", "release", "use"];
  return {
    steps: names.map((name) => ({ name, text: texts[name], at: name === here ? "here" : reached[name] ? "done" : "ahead" })),
    next,
  };
}
