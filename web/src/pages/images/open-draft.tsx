// Where a draft gets its disk from.
import { useState } from "react";
import { images as orders } from "../../api/actions";
import type { Image, MachineSize } from "../../api/types";
import { useWords } from "../../i18n";
import { Choice, Select, TextField } from "../../ui/controls";
import { FormDialog } from "../../ui/dialog";
import { useAction } from "../../ui/toast";

type From = "release" | "upload" | "empty";

export function SizeFields({ size, onChange }: { size: MachineSize; onChange: (size: MachineSize) => void }) {
  const { t } = useWords();
  return (
    <div className="row fields">
      <TextField label={t.images.vcpus} type="number" min={1} max={16} step={1} required value={size.vcpus || ""} onChange={(e) => onChange({ ...size, vcpus: Number(e.target.value) })} />
      <TextField label={t.images.memory} type="number" min={64} max={65536} step={1} required value={size.memory_mib || ""} onChange={(e) => onChange({ ...size, memory_mib: Number(e.target.value) })} />
    </div>
  );
}

export function OpenDraft({ image, onClose }: { image: Image; onClose: () => void }) {
  const { t } = useWords();
  const usable = image.releases.filter((r) => r.state !== "damaged").sort((a, b) => b.version - a.version);
  const newest = usable[0];
  const [from, setFrom] = useState<From>(newest ? "release" : "upload");
  const [release, setRelease] = useState(newest?.id ?? "");
  const [disk, setDisk] = useState(16);
  const [larger, setLarger] = useState(0);
  const [size, setSize] = useState<MachineSize>(newest?.size ?? { vcpus: 1, memory_mib: 768 });
  const open = useAction(orders.openDraft, { stale: ["images", "operations"], onDone: onClose });
  return (
    <FormDialog
      title={t.images.openDraft}
      onClose={onClose}
      submit={t.images.openDraft}
      busy={open.busy}
      onSubmit={() =>
        open.run(image.id, {
          source: from === "release" ? { from, release, ...(larger > 0 && { disk_gib: larger }) } : from === "upload" ? { from } : { from, disk_gib: disk },
          size,
        })
      }
    >
      <Choice<From>
        legend={t.images.draftFrom}
        value={from}
        onChange={setFrom}
        options={[
          ...(newest ? [{ value: "release" as const, label: t.images.fromRelease(usable.find((r) => r.id === release)?.version ?? newest.version) }] : []),
          { value: "upload", label: t.images.fromUpload, hint: t.images.uploadHint },
          { value: "empty", label: t.images.fromEmpty },
        ]}
      />
      {from === "release" && usable.length > 1 && (
        <Select label={t.desktop.release} value={release} onChange={(e) => setRelease(e.target.value)}>
          {usable.map((r) => (
            <option key={r.id} value={r.id}>
              {t.courses.pin(r.version, r.note)}
            </option>
          ))}
        </Select>
      )}
      {from === "release" && <TextField label={t.images.largerDisk} type="number" min={1} max={2048} value={larger || ""} onChange={(e) => setLarger(Number(e.target.value))} />}
      {from === "empty" && <TextField label={t.images.diskGib} type="number" min={1} max={2048} required value={disk || ""} onChange={(e) => setDisk(Number(e.target.value))} />}
      <SizeFields size={size} onChange={setSize} />
      <p className="hint">{t.images.sizeHint}</p>
    </FormDialog>
  );
}
