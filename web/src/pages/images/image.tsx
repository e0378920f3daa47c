// One image: its flow, its draft, its releases.
import { useState } from "react";
import { images as orders } from "../../api/actions";
import { useImages } from "../../api/queries";
import type { Image } from "../../api/types";
import { useWords } from "../../i18n";
import { go } from "../../router";
import { useSession } from "../../shell/session";
import { Button, TextArea, TextField } from "../../ui/controls";
import { FormDialog, useConfirm } from "../../ui/dialog";
import { Loaded, Menu, PageHead } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { DraftPanel } from "./draft-panel";
import { FlowView } from "./flow-view";
import { OpenDraft } from "./open-draft";
import { Releases } from "./releases";

export function ImagePage({ id }: { id: string }) {
  const { t } = useWords();
  const images = useImages();
  return (
    <Loaded query={images}>
      {(list) => {
        const image = list.find((i) => i.id === id);
        return image ? <Found image={image} /> : <PageHead title={t.common.notFound} />;
      }}
    </Loaded>
  );
}

function Found({ image }: { image: Image }) {
  const { t } = useWords();
  const { admin } = useSession();
  const confirm = useConfirm();
  const [dialog, setDialog] = useState<"edit" | "draft" | null>(null);
  const remove = useAction(() => orders.remove(image.id), { stale: ["images"], onDone: () => go("/images") });
  return (
    <>
      <PageHead title={image.name} lead={image.description || undefined} back={{ to: "/images", label: t.nav.images }}>
        {!image.draft && (
          <Button look="primary" icon="plus" onClick={() => setDialog("draft")}>
            {t.images.openDraft}
          </Button>
        )}
        <Menu
          label={t.common.more}
          items={[
            { label: t.images.edit, icon: "settings", onSelect: () => setDialog("edit") },
            ...(admin
              ? [
                  {
                    label: t.common.delete,
                    icon: "trash" as const,
                    danger: true,
                    onSelect: () =>
                      void confirm({ title: t.images.deleteImageTitle(image.name), body: t.images.deleteImageLoses, confirm: t.common.delete, danger: true }).then((yes) => {
                        if (yes) remove.run();
                      }),
                  },
                ]
              : []),
          ]}
        />
      </PageHead>
      <div className="stack wide-gap">
        <section className="panel">
          <FlowView image={image} />
        </section>
        {image.draft && <DraftPanel image={image} draft={image.draft} />}
        <Releases image={image} />
      </div>
      {dialog === "edit" && <Edit image={image} onClose={() => setDialog(null)} />}
      {dialog === "draft" && <OpenDraft image={image} onClose={() => setDialog(null)} />}
    </>
  );
}

function Edit({ image, onClose }: { image: Image; onClose: () => void }) {
  const { t } = useWords();
  const [name, setName] = useState(image.name);
  const [description, setDescription] = useState(image.description);
  const change = useAction(orders.change, { stale: ["images"], onDone: onClose });
  return (
    <FormDialog title={t.images.edit} onClose={onClose} submit={t.common.save} busy={change.busy} onSubmit={() => change.run(image.id, { name: name.trim(), description: description.trim() })}>
      <TextField label={t.common.name} value={name} onChange={(e) => setName(e.target.value)} required maxLength={80} />
      <TextArea label={t.images.description} value={description} onChange={(e) => setDescription(e.target.value)} rows={3} />
    </FormDialog>
  );
}
