// Texts that the API made: beside the English text it says how it was made, and that is put into another language.
// What has no wording, or one that the dictionary does not know, stays as it is.

export interface Wording {
  code: string;
  params?: Record<string, string>;
}

/** As heard last, by their English text. Bounded: a page may be open for days. */
const known = new Map<string, Wording>();
const MOST = 4000;
/** A text in a text in a text ... */
const DEPTH = 4;

/** Keeps the wordings of an answer, wherever in it they are. */
export function learn(value: unknown): void {
  if (Array.isArray(value)) {
    for (const item of value) learn(item);
    return;
  }
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (key !== "wordings") learn(inner);
    else if (typeof inner === "object" && inner !== null) {
      for (const [text, wording] of Object.entries(inner as Record<string, Wording>)) {
        // The newest last, so that the oldest is what is forgotten.
        known.delete(text);
        known.set(text, wording);
      }
    }
  }
  while (known.size > MOST) {
    const oldest = known.keys().next();
    if (oldest.done) break;
    known.delete(oldest.value);
  }
}

/** A text of the API in the language of these forms. */
export function translate(text: string, forms: Readonly<Record<string, string>>, depth = DEPTH): string {
  const wording = known.get(text);
  const form = wording && Object.hasOwn(forms, wording.code) ? forms[wording.code] : undefined;
  if (!wording || form === undefined || depth === 0) return text;
  return form.replace(/\{(\w+)\}/g, (hole, name: string) => {
    const value = wording.params?.[name];
    return value === undefined ? hole : translate(value, forms, depth - 1);
  });
}
