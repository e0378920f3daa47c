// Short messages at the edge, read out by screen readers; and orders that report their errors there.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { createContext, useCallback, useContext, useRef, useState, type ReactNode } from "react";
import { ApiError } from "../api/client";
import { useWords, type Dictionary } from "../i18n";
import { IconButton } from "./controls";
import { Icon } from "./icons";

interface Toast {
  id: number;
  tone: "good" | "bad";
  text: string;
}

type Show = (tone: Toast["tone"], text: string) => void;
const Context = createContext<Show>(() => {});
export const useToast = () => useContext(Context);

export function ToastProvider({ children }: { children: ReactNode }) {
  const { t } = useWords();
  const [toasts, setToasts] = useState<Toast[]>([]);
  const next = useRef(1);
  const drop = useCallback((id: number) => setToasts((all) => all.filter((x) => x.id !== id)), []);
  const show = useCallback<Show>(
    (tone, text) => {
      const id = next.current++;
      setToasts((all) => [...all.filter((x) => x.text !== text), { id, tone, text }].slice(-4));
      // Good news goes by itself; bad news waits to be read.
      if (tone === "good") setTimeout(() => drop(id), 4000);
    },
    [drop],
  );
  return (
    <Context value={show}>
      {children}
      <section className="toasts" aria-label={t.toast.region} aria-live="polite">
        {toasts.map((toast) => (
          <div key={toast.id} className={`toast tone-${toast.tone}`} role={toast.tone === "bad" ? "alert" : "status"}>
            <Icon name={toast.tone === "bad" ? "warning" : "check"} />
            <p>{toast.text}</p>
            <IconButton icon="close" label={t.common.dismiss} onClick={() => drop(toast.id)} />
          </div>
        ))}
      </section>
    </Context>
  );
}

/** An error in words: the API's own, or that it could not be asked. */
export function errorText(error: unknown, t: Dictionary): string {
  if (error instanceof ApiError) return error.unreachable ? t.common.unreachable : t.say(error.message);
  if (error instanceof Error) return error.message;
  return String(error);
}

/** An order to the API: says when it runs, shows its error, and makes `stale` be fetched again. */
export function useAction<A extends unknown[], R>(
  action: (...args: A) => Promise<R>,
  options: { stale?: string[]; done?: string; onDone?: (result: R) => void } = {},
) {
  const client = useQueryClient();
  const show = useToast();
  const { t } = useWords();
  const mutation = useMutation({
    mutationFn: (args: A) => action(...args),
    onSuccess: (result) => {
      if (options.done) show("good", options.done);
      options.onDone?.(result);
    },
    onError: (error) => {
      if (!(error instanceof ApiError && error.unauthenticated)) show("bad", errorText(error, t));
    },
    onSettled: () => {
      for (const key of options.stale ?? []) void client.invalidateQueries({ queryKey: [key] });
    },
  });
  return {
    run: (...args: A) => mutation.mutate(args),
    busy: mutation.isPending,
    error: mutation.error,
  };
}
