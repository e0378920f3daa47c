import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { session } from "../../api/actions";
import { useWords } from "../../i18n";
import { forgetAll } from "../../shell/session";
import { Button, Notice, TextField } from "../../ui/controls";
import { errorText } from "../../ui/toast";
import { Entrance } from "./entrance";

export function SignInPage() {
  const { t } = useWords();
  const client = useQueryClient();
  const [login, setLogin] = useState("");
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);

  const submit = async () => {
    setBusy(true);
    setError(null);
    try {
      const me = await session.signIn(login.trim(), password);
      forgetAll(client);
      client.setQueryData(["me"], me);
    } catch (e) {
      setError(e);
      setPassword("");
    } finally {
      setBusy(false);
    }
  };

  return (
    <Entrance title={t.signIn.title} subtitle={t.signIn.subtitle}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        {error !== null && <Notice tone="bad">{errorText(error, t)}</Notice>}
        <TextField label={t.signIn.login} value={login} onChange={(e) => setLogin(e.target.value)} autoComplete="username" autoCapitalize="none" spellCheck={false} required autoFocus name="login" />
        <TextField label={t.signIn.password} type="password" value={password} onChange={(e) => setPassword(e.target.value)} autoComplete="current-password" required name="password" />
        <Button type="submit" look="primary" size="big" busy={busy}>
          {t.signIn.submit}
        </Button>
        <p className="hint">{t.signIn.help}</p>
      </form>
    </Entrance>
  );
}
