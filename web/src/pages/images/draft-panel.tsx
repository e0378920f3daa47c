// The open draft: its disk, its console, its sealing.
import { useState } from "react";
import { drafts } from "../../api/actions";
import type { Draft, Image } from "../../api/types";
import { useWords } from "../../i18n";
import { isMoving } from "../../lib/phase";
import { sizeText } from "../../lib/format";
import { Button, LinkButton, Notice, PhaseBadge, Tag, TextArea } from "../../ui/controls";
import { FormDialog, useConfirm } from "../../ui/dialog";
import { Progress } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { SizeFields } from "./open-draft";
import { Upload } from "./upload";

const STALE = ["images", "operations"];

export function DraftPanel({ image, draft }: { image: Image; draft: Draft }) {
  const { t } = useWords();
  const confirm = useConfirm();
  const [sealing, setSealing] = useState(false);
  // The draft counts as importing from the first byte; what is being sent here stays on the screen.
  const [uploading, setUploading] = useState(false);
  const stop = useAction(() => drafts.stop(draft.id), { stale: STALE });
  const discard = useAction(() => drafts.discard(draft.id), { stale: STALE });
  const from = image.releases.find((r) => r.id === draft.from_release);
  const ready = draft.state === "ready";
  return (
    <section className="panel draft" aria-labelledby="draft-title">
      <div className="row between wrap">
        <h2 id="draft-title">{t.images.steps.draft}</h2>
        <span className="row wrap">
          {from && <Tag>{t.images.fromRelease(from.version)}</Tag>}
          {draft.iso && <Tag>{t.images.iso}</Tag>}
          <Tag>{sizeText(draft.size, t)}</Tag>
          {ready && <PhaseBadge phase={draft.phase} />}
        </span>
      </div>
      <p className="muted">
        {t.images.owner(draft.owner)}
        {draft.host && ` · ${t.images.draftOn(draft.host)}`}
      </p>
      {draft.state === "importing" && !uploading && (
        <>
          <Progress label={t.images.nextImporting} done={draft.percent ?? 0} total={typeof draft.percent === "number" ? 100 : null} />
          <p className="muted">{t.say(draft.detail) || t.images.nextImporting}</p>
        </>
      )}
      {draft.state === "sealing" && (
        <>
          <Progress label={t.images.stepText.sealing} done={0} total={null} />
          <p className="muted">{t.say(draft.detail) || t.images.nextSealing}</p>
        </>
      )}
      {draft.state !== "importing" && draft.state !== "sealing" && draft.detail && <Notice tone={draft.phase === "failed" || draft.state === "empty" ? "warn" : "info"}>{t.say(draft.detail)}</Notice>}
      {(draft.state === "empty" || uploading) && <Upload draft={draft} onBusy={setUploading} />}
      <div className="row wrap">
        {ready && (
          <>
            <LinkButton icon="open" to={`/console/draft/${draft.id}`}>
              {t.images.openConsole}
            </LinkButton>
            {(draft.phase === "running" || draft.phase === "starting") && (
              <Button icon="stop" busy={stop.busy} onClick={() => stop.run()}>
                {t.images.stopDraft}
              </Button>
            )}
            <Button look="primary" icon="seal" disabled={isMoving(draft.phase)} onClick={() => setSealing(true)}>
              {t.images.sealAction}
            </Button>
          </>
        )}
        <Button
          look="quiet"
          icon="trash"
          busy={discard.busy}
          onClick={() =>
            void confirm({ title: t.images.discardTitle, body: t.images.discardLoses, confirm: t.images.discard, danger: true }).then((yes) => {
              if (yes) discard.run();
            })
          }
        >
          {t.images.discard}
        </Button>
      </div>
      {sealing && <Seal image={image} draft={draft} onClose={() => setSealing(false)} />}
    </section>
  );
}

function Seal({ image, draft, onClose }: { image: Image; draft: Draft; onClose: () => void }) {
  const { t } = useWords();
  const [note, setNote] = useState("");
  const [size, setSize] = useState(draft.size);
  const seal = useAction(() => drafts.seal(draft.id, { note: note.trim(), size }), { stale: STALE, onDone: onClose });
  return (
    <FormDialog title={t.images.sealTitle(image.name)} onClose={onClose} submit={t.images.sealAction} busy={seal.busy} onSubmit={() => seal.run()}>
      <p>{t.images.sealBody}</p>
      <TextArea label={t.images.note} value={note} onChange={(e) => setNote(e.target.value)} rows={3} placeholder={t.images.notePlaceholder} autoFocus />
      <SizeFields size={size} onChange={setSize} />
      <p className="hint">{t.images.sizeHint}</p>
    </FormDialog>
  );
}
