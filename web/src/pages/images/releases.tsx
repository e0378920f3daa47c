// The sealed versions of an image.
import { images as orders } from "../../api/actions";
import type { Image, Release } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes, dateTime, shortHash, sizeText } from "../../lib/format";
import { useSession } from "../../shell/session";
import { Badge, Button, Notice, Tag } from "../../ui/controls";
import { useConfirm } from "../../ui/dialog";
import { Menu } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { newestOffered } from "./flow";

const TONES = { offered: "good", retired: "idle", damaged: "bad" } as const;
const STALE = ["images", "courses"];

export function Releases({ image }: { image: Image }) {
  const { t } = useWords();
  const newest = newestOffered(image);
  return (
    <section className="panel" aria-labelledby="releases-title">
      <h2 id="releases-title">{t.images.releases}</h2>
      {image.releases.length === 0 && <p className="muted">{t.images.noReleases}</p>}
      <ul className="releases">
        {image.releases.map((release) => (
          <ReleaseRow key={release.id} release={release} newest={release.id === newest?.id} />
        ))}
      </ul>
    </section>
  );
}

function ReleaseRow({ release: r, newest }: { release: Release; newest: boolean }) {
  const { t, locale } = useWords();
  const { admin } = useSession();
  const confirm = useConfirm();
  const retire = useAction(() => orders.retire(r.id), { stale: STALE });
  const offer = useAction(() => orders.offer(r.id), { stale: STALE });
  const remove = useAction(() => orders.removeRelease(r.id), { stale: STALE });
  return (
    <li className="release">
      <div className="release-version">v{r.version}</div>
      <div className="release-body">
        <p className="row wrap">
          <strong>{r.note || t.images.steps.release}</strong>
          <Badge tone={TONES[r.state]}>{t.images.state[r.state]}</Badge>
          {newest && <Tag>{t.images.newest}</Tag>}
        </p>
        <p className="muted">
          {t.images.sealedBy(r.sealed_by, dateTime(r.sealed_at, locale))} · {t.images.disk(bytes(r.virtual_bytes))} · {t.images.onDisk(bytes(r.bytes_on_disk))}
        </p>
        <p className="muted">
          {r.size ? `${sizeText(r.size, t)}, ${t.images.forks}` : null} <code title={r.id}>{shortHash(r.id)}</code>
        </p>
        {r.cold_reason && (
          <Notice>
            {t.images.coldOnly} {r.cold_reason}
          </Notice>
        )}
        <div>
          <span className="muted">{t.images.usedBy}: </span>
          {r.used_by.length === 0 && t.images.notUsed}
          <ul className="used-by">
            {r.used_by.map((who) => (
              <li key={who}>{who}</li>
            ))}
          </ul>
        </div>
      </div>
      <div className="row">
        {r.state === "offered" && (
          <Button size="small" busy={retire.busy} onClick={() => retire.run()} title={t.images.retireHint}>
            {t.images.retire}
          </Button>
        )}
        {r.state === "retired" && (
          <Button size="small" busy={offer.busy} onClick={() => offer.run()}>
            {t.images.offer}
          </Button>
        )}
        {admin && (
          <Menu
            small
            label={`${t.common.more}: v${r.version}`}
            items={[
              {
                label: t.common.delete,
                icon: "trash",
                danger: true,
                onSelect: () =>
                  void confirm({ title: t.images.deleteReleaseTitle(r.version), body: t.images.deleteReleaseLoses, confirm: t.common.delete, danger: true }).then((yes) => {
                    if (yes) remove.run();
                  }),
              },
            ]}
          />
        )}
      </div>
    </li>
  );
}
