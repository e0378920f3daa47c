// A one-time link: choose a password and be in.
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { session } from "../../api/actions";
import { useWords } from "../../i18n";
import { go } from "../../router";
import { forgetAll } from "../../shell/session";
import { Button, LinkButton, Notice, TextField } from "../../ui/controls";
import { errorText } from "../../ui/toast";
import { Entrance } from "./entrance";

export function WelcomePage({ secret }: { secret: string }) {
  const { t } = useWords();
  const client = useQueryClient();
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState<"set" | "skip" | null>(null);
  const [error, setError] = useState<unknown>(null);

  const submit = async (newPassword: string | null) => {
    setBusy(newPassword === null ? "skip" : "set");
    setError(null);
    try {
      const me = await session.oneTime(secret, newPassword);
      forgetAll(client);
      client.setQueryData(["me"], me);
      // The secret must not stay in the history.
      go("/", true);
    } catch (e) {
      setError(e);
    } finally {
      setBusy(null);
    }
  };

  return (
    <Entrance title={t.welcome.title} subtitle={t.welcome.subtitle}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if ([...password].length < 8) setWrong(t.welcome.tooShort);
          else if (password !== again) setWrong(t.welcome.mismatch);
          else {
            setWrong("");
            void submit(password);
          }
        }}
      >
        {error !== null && (
          <Notice tone="bad">
            <p>{errorText(error, t)}</p>
            <LinkButton to="/" size="small">
              {t.welcome.used}
            </LinkButton>
          </Notice>
        )}
        <TextField label={t.welcome.password} type="password" value={password} onChange={(e) => setPassword(e.target.value)} autoComplete="new-password" hint={t.welcome.rule} required autoFocus name="new-password" />
        <TextField label={t.welcome.again} type="password" value={again} onChange={(e) => setAgain(e.target.value)} autoComplete="new-password" error={wrong} required name="again" />
        <Button type="submit" look="primary" size="big" busy={busy === "set"}>
          {t.welcome.submit}
        </Button>
        <Button look="quiet" busy={busy === "skip"} onClick={() => void submit(null)}>
          {t.welcome.without}
        </Button>
      </form>
    </Entrance>
  );
}
