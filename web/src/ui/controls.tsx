// Buttons, fields and badges.
import { useId, type ButtonHTMLAttributes, type InputHTMLAttributes, type ReactNode, type SelectHTMLAttributes, type TextareaHTMLAttributes } from "react";
import { useWords } from "../i18n";
import type { Phase } from "../api/types";
import { isMoving, toneOf, type Tone } from "../lib/phase";
import { Icon, type IconName } from "./icons";

type Look = "primary" | "plain" | "quiet" | "danger";

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  look?: Look;
  icon?: IconName;
  busy?: boolean;
  size?: "small" | "normal" | "big";
}

export function Button({ look = "plain", icon, busy, size = "normal", className, children, disabled, ...rest }: ButtonProps) {
  return (
    <button
      type="button"
      className={`button ${look} ${size} ${className ?? ""}`}
      disabled={disabled || busy}
      aria-busy={busy || undefined}
      {...rest}
    >
      {busy ? <span className="spinner" aria-hidden="true" /> : icon && <Icon name={icon} size={18} />}
      {children !== undefined && <span>{children}</span>}
    </button>
  );
}

export function LinkButton({ to, look = "plain", icon, size = "normal", children, className }: { to: string; look?: Look; icon?: IconName; size?: "small" | "normal" | "big"; children: ReactNode; className?: string }) {
  return (
    <a href={`#${to}`} className={`button ${look} ${size} ${className ?? ""}`}>
      {icon && <Icon name={icon} size={18} />}
      <span>{children}</span>
    </a>
  );
}

/** A button that is only an icon; the label is for those who don't see it, and as a tip. */
export function IconButton({ icon, label, busy, className, ...rest }: { icon: IconName; label: string; busy?: boolean } & ButtonHTMLAttributes<HTMLButtonElement>) {
  return (
    <button type="button" className={`icon-button ${className ?? ""}`} aria-label={label} title={label} disabled={busy} {...rest}>
      {busy ? <span className="spinner" aria-hidden="true" /> : <Icon name={icon} />}
    </button>
  );
}

interface FieldBase {
  label: ReactNode;
  hint?: ReactNode;
  error?: ReactNode;
}

function useField({ hint, error }: FieldBase) {
  const id = useId();
  return {
    id,
    describedBy: [hint ? `${id}-hint` : "", error ? `${id}-error` : ""].join(" ").trim() || undefined,
  };
}

function Wrap({ id, label, hint, error, children }: FieldBase & { id: string; children: ReactNode }) {
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {children}
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {error && (
        <p className="field-error" id={`${id}-error`}>
          {error}
        </p>
      )}
    </div>
  );
}

export function TextField({ label, hint, error, ...rest }: FieldBase & InputHTMLAttributes<HTMLInputElement>) {
  const { id, describedBy } = useField({ label, hint, error });
  return (
    <Wrap id={id} label={label} hint={hint} error={error}>
      <input id={id} type="text" aria-describedby={describedBy} aria-invalid={error ? true : undefined} {...rest} />
    </Wrap>
  );
}

export function TextArea({ label, hint, error, ...rest }: FieldBase & TextareaHTMLAttributes<HTMLTextAreaElement>) {
  const { id, describedBy } = useField({ label, hint, error });
  return (
    <Wrap id={id} label={label} hint={hint} error={error}>
      <textarea id={id} aria-describedby={describedBy} {...rest} />
    </Wrap>
  );
}

export function Select({ label, hint, error, children, ...rest }: FieldBase & SelectHTMLAttributes<HTMLSelectElement>) {
  const { id, describedBy } = useField({ label, hint, error });
  return (
    <Wrap id={id} label={label} hint={hint} error={error}>
      <select id={id} aria-describedby={describedBy} {...rest}>
        {children}
      </select>
    </Wrap>
  );
}

export function CheckBox({ label, hint, ...rest }: { label: ReactNode; hint?: ReactNode } & InputHTMLAttributes<HTMLInputElement>) {
  const id = useId();
  return (
    <div className="check">
      <input id={id} type="checkbox" aria-describedby={hint ? `${id}-hint` : undefined} {...rest} />
      <div>
        <label htmlFor={id}>{label}</label>
        {hint && (
          <p className="hint" id={`${id}-hint`}>
            {hint}
          </p>
        )}
      </div>
    </div>
  );
}

/** One of a few, shown side by side. */
export function Segmented<T extends string>({ label, value, options, onChange }: { label: string; value: T; options: { value: T; label: ReactNode; icon?: IconName }[]; onChange: (value: T) => void }) {
  const name = useId();
  return (
    <fieldset className="segmented">
      <legend className="sr-only">{label}</legend>
      {options.map((option) => (
        <label key={option.value} className={option.value === value ? "on" : ""}>
          <input type="radio" name={name} checked={option.value === value} onChange={() => onChange(option.value)} />
          {option.icon && <Icon name={option.icon} size={16} />}
          <span>{option.label}</span>
        </label>
      ))}
    </fieldset>
  );
}

/** Choices with a sentence each. */
export function Choice<T extends string>({ legend, value, options, onChange }: { legend: string; value: T; options: { value: T; label: ReactNode; hint?: ReactNode; disabled?: boolean }[]; onChange: (value: T) => void }) {
  const name = useId();
  return (
    <fieldset className="choice">
      <legend>{legend}</legend>
      {options.map((option) => (
        <label key={option.value} className={option.value === value ? "on" : ""}>
          <input type="radio" name={name} checked={option.value === value} disabled={option.disabled} onChange={() => onChange(option.value)} />
          <span>
            {option.label}
            {option.hint && <span className="hint">{option.hint}</span>}
          </span>
        </label>
      ))}
    </fieldset>
  );
}

export function Badge({ tone, children, moving }: { tone: Tone | "info" | "warn"; children: ReactNode; moving?: boolean }) {
  return (
    <span className={`badge tone-${tone}`}>
      <span className={`dot ${moving ? "moving" : ""}`} aria-hidden="true" />
      {children}
    </span>
  );
}

export function PhaseBadge({ phase }: { phase: Phase }) {
  const { t } = useWords();
  return (
    <Badge tone={toneOf(phase)} moving={isMoving(phase)}>
      {t.phase[phase]}
    </Badge>
  );
}

export function Tag({ children, title }: { children: ReactNode; title?: string }) {
  return (
    <span className="tag" title={title}>
      {children}
    </span>
  );
}

export function Notice({ tone = "info", children, onClose }: { tone?: "info" | "warn" | "bad" | "good"; children: ReactNode; onClose?: () => void }) {
  const { t } = useWords();
  return (
    <div className={`notice tone-${tone}`} role={tone === "bad" ? "alert" : undefined}>
      <Icon name={tone === "info" ? "info" : tone === "good" ? "check" : "warning"} />
      <div>{children}</div>
      {onClose && <IconButton icon="close" label={t.common.dismiss} onClick={onClose} />}
    </div>
  );
}

export function Empty({ icon, title, children, action }: { icon: IconName; title: ReactNode; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="empty">
      <span className="empty-icon">
        <Icon name={icon} size={28} />
      </span>
      <h2>{title}</h2>
      {children && <p>{children}</p>}
      {action}
    </div>
  );
}
