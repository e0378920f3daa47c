// Keys of an on-screen keyboard, which come as text and not as key presses.

const SPECIAL: Record<string, number> = {
  Backspace: 0xff08,
  Tab: 0xff09,
  Enter: 0xff0d,
  Escape: 0xff1b,
  ArrowLeft: 0xff51,
  ArrowUp: 0xff52,
  ArrowRight: 0xff53,
  ArrowDown: 0xff54,
};

/** The X11 keysym of a key that makes no text; `null` for those that do. */
export const specialKeysym = (key: string): number | null => SPECIAL[key] ?? null;

/** What a text is typed as: keys, when every keyboard has them all, or else one piece that has to be pasted. Not some of each: keys go on
 * at a person's pace, and the next piece would take the place of the one before it on the clipboard. Pure. */
export function typed(text: string): number[] | string {
  const characters = [...text.replaceAll("\r\n", "\n")].filter((c) => keysymOf(c) !== null);
  const onEvery = characters.every((c) => /^[\t\n\r\x20-\x7e]$/.test(c));
  return onEvery ? characters.map((c) => keysymOf(c) ?? 0) : characters.join("");
}

/** Whether a keyboard makes it with Shift: QEMU looks for the key alone, and without Shift `A` is `a`. */
export const needsShift = (keysym: number): boolean => keysym < 0x7f && /[A-Z~!@#$%^&*()_+{}|:"<>?]/.test(String.fromCharCode(keysym));

/** The X11 keysym of a character: Latin-1 is itself, the rest is Unicode plus a flag. */
export function keysymOf(character: string): number | null {
  const code = character.codePointAt(0);
  if (code === undefined) return null;
  if (code === 9) return 0xff09;
  if (code === 10 || code === 13) return 0xff0d;
  if (code < 0x20) return null;
  return code <= 0xff ? code : 0x0100_0000 | code;
}
