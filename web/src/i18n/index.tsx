// Two dictionaries of one type: a key that is missing in either does not compile.
import { createContext, useContext, useEffect, useMemo, useState, type ReactNode } from "react";
import { en } from "./en";
import { zhHant } from "./zh-hant";

export type Dictionary = typeof en;
export type Language = "en" | "zh-Hant";

export const dictionaries: Record<Language, Dictionary> = { en, "zh-Hant": zhHant };
export const languageNames: Record<Language, string> = { en: "English", "zh-Hant": "繁體中文" };

/** The page's language for a list of the browser's: any Chinese reads Traditional here, all else English. */
export function pick(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const lower = tag.toLowerCase();
    if (lower === "zh" || lower.startsWith("zh-")) return "zh-Hant";
    if (lower === "en" || lower.startsWith("en-")) return "en";
  }
  return "en";
}

const KEY = "lyceum.language";

function initial(): Language {
  const stored = localStorage.getItem(KEY);
  if (stored === "en" || stored === "zh-Hant") return stored;
  return pick(navigator.languages ?? [navigator.language]);
}

interface Words {
  t: Dictionary;
  language: Language;
  /** For `Intl`. */
  locale: string;
  setLanguage: (language: Language) => void;
}

const Context = createContext<Words | null>(null);

export function LanguageProvider({ children }: { children: ReactNode }) {
  const [language, setState] = useState<Language>(initial);
  useEffect(() => {
    document.documentElement.lang = language;
  }, [language]);
  const value = useMemo<Words>(
    () => ({
      t: dictionaries[language],
      language,
      locale: language === "en" ? "en-GB" : "zh-TW",
      setLanguage: (next) => {
        localStorage.setItem(KEY, next);
        setState(next);
      },
    }),
    [language],
  );
  return <Context value={value}>{children}</Context>;
}

export function useWords(): Words {
  const words = useContext(Context);
  if (!words) throw new Error("useWords outside of LanguageProvider");
  return words;
}
