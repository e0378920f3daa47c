// The console of a draft: where an image is installed and changed.
import { useEffect, useRef } from "react";
import { drafts } from "../../api/actions";
import { useImages } from "../../api/queries";
import type { Draft, Image } from "../../api/types";
import { useWords } from "../../i18n";
import { Button, IconButton, LinkButton } from "../../ui/controls";
import { errorText, useAction } from "../../ui/toast";
import { ConsoleScreen, type Overlay } from "./console-screen";

function Loaded({ image, draft }: { image: Image; draft: Draft }) {
  const { t } = useWords();
  const start = useAction(() => drafts.start(draft.id), { stale: ["images"] });
  const stop = useAction(() => drafts.stop(draft.id), { stale: ["images"] });
  const opened = useRef(false);
  useEffect(() => {
    if (opened.current) return;
    opened.current = true;
    if (draft.phase === "stopped" && draft.state === "ready") start.run();
  });
  const off = draft.phase === "stopped" || draft.phase === "failed";
  const overlay: Overlay | null =
    draft.state === "sealing"
      ? { title: t.images.stepText.sealing, detail: t.say(draft.detail), busy: true }
      : draft.phase === "running"
        ? null
        : off
          ? {
              title: start.busy ? t.phase.starting : t.phase[draft.phase],
              detail: t.say(draft.detail),
              busy: start.busy,
              action: (
                <Button look="primary" icon="play" busy={start.busy} onClick={() => start.run()}>
                  {t.console.powerOn}
                </Button>
              ),
            }
          : { title: t.phase[draft.phase], detail: t.say(draft.detail), busy: true };
  return (
    <ConsoleScreen
      title={t.console.draftTitle(image.name)}
      subtitle={draft.iso ? t.images.iso : undefined}
      backTo={`/images/${image.id}`}
      running={draft.phase === "running" && draft.state === "ready"}
      getTicket={() => drafts.ticket(draft.id)}
      overlay={overlay}
      tools={<IconButton icon="stop" label={t.console.powerOff} busy={stop.busy} disabled={draft.phase !== "running"} onClick={() => stop.run()} />}
    />
  );
}

export function DraftConsolePage({ id }: { id: string }) {
  const { t } = useWords();
  const images = useImages();
  const image = images.data?.find((i) => i.draft?.id === id);
  if (image?.draft) return <Loaded key={id} image={image} draft={image.draft} />;
  return (
    <div className="console">
      <main className="console-stage" id="main">
        <div className="console-overlay" role="status">
          <div>
            <p className="overlay-title">{images.error ? errorText(images.error, t) : images.data ? t.common.notFound : t.common.loading}</p>
            <LinkButton to="/images">{t.nav.images}</LinkButton>
          </div>
        </div>
      </main>
    </div>
  );
}
