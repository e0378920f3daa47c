// Dialogs on the platform's own <dialog>: focus is kept in it, Esc closes it, the rest is inert.
import { createContext, useCallback, useContext, useEffect, useId, useRef, useState, type FormEvent, type ReactNode } from "react";
import { useWords } from "../i18n";
import { Button, IconButton } from "./controls";

export function Dialog({ title, onClose, children, wide }: { title: ReactNode; onClose: () => void; children: ReactNode; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  const { t } = useWords();
  useEffect(() => {
    const dialog = ref.current;
    if (!dialog) return;
    const before = document.activeElement;
    if (!dialog.open) dialog.showModal();
    return () => {
      dialog.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      className={wide ? "wide" : ""}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        if (event.target === ref.current) onClose();
      }}
    >
      <div className="dialog-box">
        <header>
          <h2 id={id}>{title}</h2>
          <IconButton icon="close" label={t.common.close} onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** A dialog that is a form: Enter submits, the buttons stand at the end. */
export function FormDialog({ title, onClose, onSubmit, submit, busy, disabled, danger, children, wide }: { title: ReactNode; onClose: () => void; onSubmit: () => void; submit: ReactNode; busy?: boolean; disabled?: boolean; danger?: boolean; children: ReactNode; wide?: boolean }) {
  const { t } = useWords();
  return (
    <Dialog title={title} onClose={onClose} wide={wide}>
      <form
        onSubmit={(event: FormEvent) => {
          event.preventDefault();
          if (!busy && !disabled) onSubmit();
        }}
      >
        <div className="dialog-body">{children}</div>
        <footer>
          <Button onClick={onClose}>{t.common.cancel}</Button>
          <Button type="submit" look={danger ? "danger" : "primary"} busy={busy} disabled={disabled}>
            {submit}
          </Button>
        </footer>
      </form>
    </Dialog>
  );
}

interface Question {
  title: ReactNode;
  body: ReactNode;
  confirm: ReactNode;
  danger?: boolean;
}

const ConfirmContext = createContext<(question: Question) => Promise<boolean>>(() => Promise.resolve(false));

/** Asks before something is lost. */
export const useConfirm = () => useContext(ConfirmContext);

export function ConfirmProvider({ children }: { children: ReactNode }) {
  const [asked, setAsked] = useState<{ question: Question; answer: (yes: boolean) => void } | null>(null);
  const ask = useCallback(
    (question: Question) => new Promise<boolean>((answer) => setAsked({ question, answer })),
    [],
  );
  const finish = (yes: boolean) => {
    asked?.answer(yes);
    setAsked(null);
  };
  return (
    <ConfirmContext value={ask}>
      {children}
      {asked && (
        <FormDialog
          title={asked.question.title}
          submit={asked.question.confirm}
          danger={asked.question.danger}
          onClose={() => finish(false)}
          onSubmit={() => finish(true)}
        >
          {typeof asked.question.body === "string" ? <p>{asked.question.body}</p> : asked.question.body}
        </FormDialog>
      )}
    </ConfirmContext>
  );
}
