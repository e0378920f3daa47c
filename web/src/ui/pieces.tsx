// Charts, meters, menus, and the frames that most pages share.
import { useEffect, useId, useRef, useState, type ReactNode } from "react";
import { useWords } from "../i18n";
import { share } from "../lib/format";
import { Button, Notice } from "./controls";
import { Icon, type IconName } from "./icons";
import { errorText } from "./toast";

/** A bar that says how much of a whole is used. */
export function Meter({ label, value, max, tone = "good", text }: { label: string; value: number; max: number; tone?: "good" | "warn" | "bad" | "info"; text?: string }) {
  return (
    <div className={`meter tone-${tone}`} role="meter" aria-label={label} aria-valuemin={0} aria-valuemax={max} aria-valuenow={Math.min(value, max)} aria-valuetext={text}>
      <span style={{ width: `${share(value, max) * 100}%` }} />
    </div>
  );
}

/** A bar of work under way; without a total it only says that something moves. */
export function Progress({ label, done, total }: { label: string; done: number; total: number | null }) {
  const known = total !== null && total > 0;
  return (
    <div className={`progress ${known ? "" : "unknown"}`} role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={known ? total : undefined} aria-valuenow={known ? done : undefined}>
      <span style={known ? { width: `${share(done, total) * 100}%` } : undefined} />
    </div>
  );
}

/** The course of a value over the last minutes. */
export function Sparkline({ label, values, max, tone = "good" }: { label: string; values: number[]; max: number; tone?: "good" | "info" }) {
  const width = 240;
  const height = 48;
  const top = Math.max(max, ...values, 1e-9);
  const step = values.length > 1 ? width / (values.length - 1) : width;
  const points = values.map((v, i) => `${(i * step).toFixed(1)},${(height - 2 - share(v, top) * (height - 4)).toFixed(1)}`);
  if (values.length < 2) return <div className="sparkline empty-line" role="img" aria-label={label} />;
  return (
    <svg className={`sparkline tone-${tone}`} viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <polygon points={`0,${height} ${points.join(" ")} ${width},${height}`} />
      <polyline points={points.join(" ")} vectorEffect="non-scaling-stroke" />
    </svg>
  );
}

export interface MenuItem {
  label: string;
  icon?: IconName;
  danger?: boolean;
  disabled?: boolean;
  onSelect: () => void;
}

/** A button that opens a list of orders; arrows move, Esc closes. */
export function Menu({ label, items, icon = "more", small }: { label: string; items: MenuItem[]; icon?: IconName; small?: boolean }) {
  const [open, setOpen] = useState(false);
  const [above, setAbove] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const id = useId();
  useEffect(() => {
    if (!open) return;
    const away = (event: PointerEvent) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", away);
    const rect = button.current?.getBoundingClientRect();
    setAbove(!!rect && rect.bottom + 44 * items.length + 16 > window.innerHeight && rect.top > 44 * items.length);
    box.current?.querySelector<HTMLElement>('[role="menuitem"]:not(:disabled)')?.focus();
    return () => document.removeEventListener("pointerdown", away);
  }, [open, items.length]);
  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  const move = (by: number) => {
    const all = [...(box.current?.querySelectorAll<HTMLElement>('[role="menuitem"]:not(:disabled)') ?? [])];
    const at = all.indexOf(document.activeElement as HTMLElement);
    all[(at + by + all.length) % all.length]?.focus();
  };
  return (
    <div
      className="menu"
      ref={box}
      onKeyDown={(event) => {
        if (!open) return;
        if (event.key === "Escape") close();
        else if (event.key === "ArrowDown") move(1);
        else if (event.key === "ArrowUp") move(-1);
        else if (event.key === "Tab") setOpen(false);
        else return;
        if (event.key !== "Tab") event.preventDefault();
      }}
    >
      <button ref={button} type="button" className={`icon-button ${small ? "small" : ""}`} aria-label={label} title={label} aria-haspopup="menu" aria-expanded={open} aria-controls={open ? id : undefined} onClick={() => setOpen(!open)}>
        <Icon name={icon} />
      </button>
      {open && (
        <div className={`menu-list ${above ? "above" : ""}`} role="menu" id={id} aria-label={label}>
          {items.map((item) => (
            <button
              key={item.label}
              type="button"
              role="menuitem"
              tabIndex={-1}
              disabled={item.disabled}
              className={item.danger ? "danger" : ""}
              onClick={() => {
                close();
                item.onSelect();
              }}
            >
              {item.icon && <Icon name={item.icon} size={18} />}
              {item.label}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

/** Title, one sentence, and what can be done on the page. */
export function PageHead({ title, lead, children, back }: { title: ReactNode; lead?: ReactNode; children?: ReactNode; back?: { to: string; label: string } }) {
  return (
    <header className="page-head">
      <div>
        {back && (
          <a className="back-link" href={`#${back.to}`}>
            <Icon name="back" size={16} />
            {back.label}
          </a>
        )}
        <h1>{title}</h1>
        {lead && <p className="lead">{lead}</p>}
      </div>
      {children && <div className="page-actions">{children}</div>}
    </header>
  );
}

interface QueryLike<T> {
  data: T | undefined;
  error: Error | null;
  refetch: () => unknown;
}

/** Shows what a query brought; before that, its outline; and its error in words. */
export function Loaded<T>({ query, children, rows = 3 }: { query: QueryLike<T>; children: (data: T) => ReactNode; rows?: number }) {
  const { t } = useWords();
  if (query.data !== undefined) return <>{children(query.data)}</>;
  if (query.error) {
    return (
      <Notice tone="bad">
        <p>{errorText(query.error, t)}</p>
        <Button size="small" onClick={() => void query.refetch()}>
          {t.common.retry}
        </Button>
      </Notice>
    );
  }
  return (
    <div className="skeletons" role="status" aria-label={t.common.loading}>
      {Array.from({ length: rows }, (_, i) => (
        <div key={i} className="skeleton" />
      ))}
    </div>
  );
}

export function CopyButton({ text, look = "plain", size = "small" }: { text: string; look?: "plain" | "primary"; size?: "small" | "normal" }) {
  const { t } = useWords();
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <Button
      look={look}
      size={size}
      icon={copied ? "check" : "clipboard"}
      onClick={() => {
        void copyText(text).then((ok) => setCopied(ok));
      }}
    >
      {copied ? t.common.copied : t.common.copy}
    </Button>
  );
}

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not a secure context, or refused: the old way, through a selection.
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const ok = document.execCommand("copy");
    area.remove();
    return ok;
  }
}

/** The present time, so that "3 minutes ago" stays true. */
export function useNow(everyMs: number): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

export function Facts({ items }: { items: ([string, ReactNode] | null | false | undefined)[] }) {
  return (
    <dl className="facts">
      {items.map((item) =>
        item ? (
          <div key={item[0]}>
            <dt>{item[0]}</dt>
            <dd>{item[1]}</dd>
          </div>
        ) : null,
      )}
    </dl>
  );
}

/** A table's frame. When it is wider than its place it can be scrolled, also with the keyboard. */
export function TableWrap({ label, children, short }: { label: string; children: ReactNode; short?: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const [scrolls, setScrolls] = useState(false);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setScrolls(element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1));
    observer.observe(element);
    if (element.firstElementChild) observer.observe(element.firstElementChild);
    return () => observer.disconnect();
  }, []);
  return (
    <div ref={box} className={`table-wrap ${short ? "short" : ""}`} role="region" aria-label={label} tabIndex={scrolls ? 0 : undefined}>
      {children}
    </div>
  );
}
