// Language and appearance switches.
import { languageNames, useWords, type Language } from "../i18n";
import { Segmented } from "../ui/controls";
import { useTheme, type Theme } from "./theme";

export function LanguageSwitch() {
  const { t, language, setLanguage } = useWords();
  return (
    <Segmented<Language>
      label={t.look.language}
      value={language}
      onChange={setLanguage}
      options={[
        { value: "en", label: <span lang="en">{languageNames.en}</span> },
        { value: "zh-Hant", label: <span lang="zh-Hant">{languageNames["zh-Hant"]}</span> },
      ]}
    />
  );
}

export function ThemeSwitch() {
  const { t } = useWords();
  const [theme, setTheme] = useTheme();
  return (
    <Segmented<Theme>
      label={t.look.theme}
      value={theme}
      onChange={setTheme}
      options={[
        { value: "system", label: t.look.system },
        { value: "light", label: t.look.light, icon: "sun" },
        { value: "dark", label: t.look.dark, icon: "suspend" },
      ]}
    />
  );
}
