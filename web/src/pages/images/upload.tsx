// Sending a disk file or an installation ISO, with how much has left.
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useId, useRef, useState } from "react";
import { drafts } from "../../api/actions";
import type { Draft } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes } from "../../lib/format";
import { Button, Notice, TextField } from "../../ui/controls";
import { Icon } from "../../ui/icons";
import { Progress } from "../../ui/pieces";
import { errorText } from "../../ui/toast";

export function Upload({ draft, onBusy }: { draft: Draft; onBusy: (busy: boolean) => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const id = useId();
  const [file, setFile] = useState<File | null>(null);
  const [disk, setDisk] = useState(16);
  const [sent, setSent] = useState<number | null>(null);
  const [over, setOver] = useState(false);
  const [error, setError] = useState<string>("");
  const abort = useRef<AbortController | null>(null);
  // Leaving the page ends the upload: nobody would see how it went.
  useEffect(() => () => abort.current?.abort(), []);

  const iso = file !== null && /\.iso$/i.test(file.name);
  const send = async () => {
    if (!file) return;
    setError("");
    setSent(0);
    onBusy(true);
    abort.current = new AbortController();
    try {
      await drafts.upload(draft.id, file, iso ? disk : null, (n) => setSent(n), abort.current.signal);
    } catch (e) {
      setError(e instanceof DOMException && e.name === "AbortError" ? t.images.uploadCancelled : errorText(e, t));
    } finally {
      setSent(null);
      onBusy(false);
      void client.invalidateQueries({ queryKey: ["images"] });
    }
  };

  if (sent !== null && file) {
    return (
      <div className="stack tight">
        <p>
          <strong>{file.name}</strong> <span className="muted num">{t.images.uploading(bytes(sent), bytes(file.size))}</span>
        </p>
        <Progress label={t.images.upload} done={sent} total={file.size} />
        <div>
          {sent < file.size ? (
            <Button size="small" onClick={() => abort.current?.abort()}>
              {t.common.cancel}
            </Button>
          ) : (
            <p className="muted">{t.images.nextImporting}</p>
          )}
        </div>
      </div>
    );
  }
  return (
    <div className="stack tight">
      {error && <Notice tone="bad">{error}</Notice>}
      <div
        className={`drop ${over ? "over" : ""}`}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          setFile(event.dataTransfer.files[0] ?? null);
        }}
      >
        <Icon name="upload" size={24} />
        {file ? (
          <p>
            <strong>{file.name}</strong> <span className="muted num">{bytes(file.size)}</span>
          </p>
        ) : (
          <p>{t.images.drop}</p>
        )}
        <label htmlFor={id} className="button small">
          {t.images.choose}
        </label>
        <input id={id} type="file" className="sr-only" accept=".qcow2,.raw,.img,.vmdk,.vhdx,.vdi,.iso" onChange={(e) => setFile(e.target.files?.[0] ?? null)} />
        <p className="hint">{t.images.uploadHint}</p>
      </div>
      {iso && <TextField label={t.images.isoDisk} type="number" min={1} max={2048} value={disk || ""} onChange={(e) => setDisk(Number(e.target.value))} />}
      {file && (
        <div>
          <Button look="primary" icon="upload" onClick={() => void send()}>
            {t.images.startUpload}
          </Button>
        </div>
      )}
    </div>
  );
}
