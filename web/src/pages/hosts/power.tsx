// A host's power: whether it is on, and how it is switched.
import { useState } from "react";
import { hosts as orders } from "../../api/actions";
import { usePower } from "../../api/queries";
import type { Host, PowerMethod, PowerShown } from "../../api/types";
import { useWords } from "../../i18n";
import { ago } from "../../lib/format";
import { Badge, Button, CheckBox, Notice, Select, TextField } from "../../ui/controls";
import { FormDialog } from "../../ui/dialog";
import { Loaded, useNow } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

const TONES = { on: "good", waking: "busy", off: "idle", going_off: "busy" } as const;

export function PowerLine({ host, admin }: { host: Host; admin: boolean }) {
  const { t, locale } = useWords();
  const now = useNow(10_000);
  const [open, setOpen] = useState(false);
  const stale = ["hosts"];
  const on = useAction(orders.powerOn, { stale });
  const off = useAction(orders.powerOff, { stale });
  const power = host.power;
  return (
    <div>
      <p className="row between wrap">
        <span className="row">
          <span>{t.power.title}</span>
          <Badge tone={TONES[power.state]}>{t.power.states[power.state]}</Badge>
          {power.since > 0 && <span className="muted small">{t.power.since(ago(power.since, now, locale))}</span>}
          {power.measured_watts ? (
            <span className="muted small num">{t.power.wattsMeasured(power.measured_watts)}</span>
          ) : power.watts ? (
            <span className="muted small num">{t.power.wattsOf(power.watts)}</span>
          ) : null}
        </span>
        {admin && (
          <span className="row">
            {power.state === "off" && !power.not_switchable && (
              <Button size="small" busy={on.busy} onClick={() => on.run(host.id)}>
                {t.power.switchOn}
              </Button>
            )}
            {power.state === "on" && !power.not_switchable && host.desktops === 0 && (
              <Button size="small" busy={off.busy} onClick={() => off.run(host.id)}>
                {t.power.switchOff}
              </Button>
            )}
            <Button size="small" onClick={() => setOpen(true)}>
              {t.power.setUp}
            </Button>
          </span>
        )}
      </p>
      {power.failure && <Notice tone="warn">{t.say(power.failure)}</Notice>}
      {open && <PowerDialog host={host.id} onClose={() => setOpen(false)} />}
    </div>
  );
}

function PowerDialog({ host, onClose }: { host: string; onClose: () => void }) {
  const power = usePower(host);
  return <Loaded query={power}>{(shown) => <PowerForm host={host} shown={shown} onClose={onClose} />}</Loaded>;
}

type Way = "none" | PowerMethod["by"];

function fresh(way: Way, commands: string[]): PowerMethod | null {
  switch (way) {
    case "none":
      return null;
    case "wake_on_lan":
      return { by: "wake_on_lan", mac: "", address: null };
    case "ipmi":
      return { by: "ipmi", address: "", user: "" };
    case "redfish":
      return { by: "redfish", url: "https://", user: "", system: null, any_certificate: false };
    case "command":
      return { by: "command", name: commands[0] ?? "" };
  }
}

function PowerForm({ host, shown, onClose }: { host: string; shown: PowerShown; onClose: () => void }) {
  const { t } = useWords();
  const [setup, setSetup] = useState(shown.setup);
  const [password, setPassword] = useState("");
  const save = useAction(orders.setPower, { stale: ["hosts"], done: t.common.saved, onDone: onClose });
  const method = setup.method ?? null;
  const set = (change: Partial<PowerMethod>) => method && setSetup({ ...setup, method: { ...method, ...change } as PowerMethod });
  const watts = (key: "watts" | "watts_off") => (
    <TextField label={t.power[key]} type="number" min={0} max={100_000} step="any" value={setup[key] ?? ""} onChange={(e) => setSetup({ ...setup, [key]: Number.isNaN(e.target.valueAsNumber) ? null : e.target.valueAsNumber })} />
  );
  return (
    <FormDialog title={t.power.of(host)} onClose={onClose} submit={t.common.save} busy={save.busy} onSubmit={() => save.run(host, setup, password || null)}>
      {shown.power.not_switchable && <Notice tone="info">{t.say(shown.power.not_switchable)}</Notice>}
      <Select label={t.power.method} value={method?.by ?? "none"} onChange={(e) => setSetup({ ...setup, method: fresh(e.target.value as Way, shown.commands) })}>
        {(["none", "wake_on_lan", "ipmi", "redfish", ...(shown.commands.length ? (["command"] as const) : [])] as const).map((way) => (
          <option key={way} value={way}>
            {t.power.methods[way]}
          </option>
        ))}
      </Select>
      {method?.by === "wake_on_lan" && (
        <>
          <TextField label={t.power.mac} value={method.mac} onChange={(e) => set({ mac: e.target.value })} required placeholder="52:54:00:12:34:56" spellCheck={false} />
          <TextField label={t.power.broadcast} hint={t.power.broadcastHint} value={method.address ?? ""} onChange={(e) => set({ address: e.target.value || null })} placeholder="255.255.255.255:9" spellCheck={false} />
        </>
      )}
      {method?.by === "ipmi" && <TextField label={t.power.address} value={method.address} onChange={(e) => set({ address: e.target.value })} required spellCheck={false} />}
      {method?.by === "redfish" && (
        <>
          <TextField label={t.power.address} value={method.url} onChange={(e) => set({ url: e.target.value })} required type="url" spellCheck={false} />
          <TextField label={t.power.system} hint={t.power.systemHint} value={method.system ?? ""} onChange={(e) => set({ system: e.target.value || null })} spellCheck={false} />
          <CheckBox label={t.power.anyCertificate} checked={method.any_certificate ?? false} onChange={(e) => set({ any_certificate: e.target.checked })} />
        </>
      )}
      {(method?.by === "ipmi" || method?.by === "redfish") && (
        <>
          <TextField label={t.power.user} value={method.user} onChange={(e) => set({ user: e.target.value })} required autoComplete="off" spellCheck={false} />
          <TextField label={t.power.password} hint={shown.has_password ? t.power.passwordKept : undefined} type="password" value={password} onChange={(e) => setPassword(e.target.value)} autoComplete="new-password" maxLength={256} />
        </>
      )}
      {method?.by === "command" && (
        <Select label={t.power.command} value={method.name} onChange={(e) => set({ name: e.target.value })}>
          {shown.commands.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </Select>
      )}
      {watts("watts")}
      {watts("watts_off")}
      <TextField label={t.power.group} hint={t.power.groupHint} value={setup.group ?? ""} onChange={(e) => setSetup({ ...setup, group: e.target.value || null })} maxLength={64} />
      <CheckBox label={t.power.reserve} checked={setup.reserve ?? false} onChange={(e) => setSetup({ ...setup, reserve: e.target.checked })} />
      <CheckBox label={t.power.maintenance} checked={setup.maintenance ?? false} onChange={(e) => setSetup({ ...setup, maintenance: e.target.checked })} />
    </FormDialog>
  );
}
