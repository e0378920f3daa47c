import { useState } from "react";
import { images as orders } from "../../api/actions";
import { useImages } from "../../api/queries";
import { useWords } from "../../i18n";
import { go } from "../../router";
import { Button, Empty, TextArea, TextField } from "../../ui/controls";
import { FormDialog } from "../../ui/dialog";
import { Loaded, PageHead } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { FlowView } from "./flow-view";

export function ImagesPage() {
  const { t } = useWords();
  const images = useImages();
  const [making, setMaking] = useState(false);
  return (
    <>
      <PageHead title={t.images.title} lead={t.images.lead}>
        <Button look="primary" icon="plus" onClick={() => setMaking(true)}>
          {t.images.new}
        </Button>
      </PageHead>
      <Loaded query={images}>
        {(list) =>
          list.length === 0 ? (
            <Empty icon="image" title={t.images.none}>
              {t.images.noneHint}
            </Empty>
          ) : (
            <div className="stack">
              {list.map((image) => (
                <article key={image.id} className="panel image-row">
                  <div className="image-name">
                    <h2>
                      <a href={`#/images/${image.id}`} className="cover-link">
                        {image.name}
                      </a>
                    </h2>
                    {image.description && <p className="muted">{image.description}</p>}
                  </div>
                  <FlowView image={image} quiet />
                </article>
              ))}
            </div>
          )
        }
      </Loaded>
      {making && <NewImage onClose={() => setMaking(false)} />}
    </>
  );
}

function NewImage({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const [name, setName] = useState("");
  const [description, setDescription] = useState("");
  const create = useAction(orders.create, { stale: ["images"], onDone: (image) => go(`/images/${image.id}`) });
  return (
    <FormDialog title={t.images.new} onClose={onClose} submit={t.common.create} busy={create.busy} onSubmit={() => create.run(name.trim(), description.trim())}>
      <TextField label={t.common.name} value={name} onChange={(e) => setName(e.target.value)} required maxLength={80} autoFocus />
      <TextArea label={t.images.description} value={description} onChange={(e) => setDescription(e.target.value)} rows={3} />
    </FormDialog>
  );
}
