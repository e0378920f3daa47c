// What a course is made of. Running desktops keep what they started with.
import { useState } from "react";
import { courses } from "../../api/actions";
import { useImages } from "../../api/queries";
import type { Course, CoursePatch } from "../../api/types";
import { useWords } from "../../i18n";
import { go } from "../../router";
import { useSession } from "../../shell/session";
import { Button, CheckBox, Choice, Select, TextField } from "../../ui/controls";
import { useConfirm } from "../../ui/dialog";
import { useAction } from "../../ui/toast";
import { newestOffered } from "../images/flow";
import { SizeFields } from "../images/open-draft";
import { PersistenceChoice } from "./courses";

const NEWEST = "newest";

export function CourseSettings({ course }: { course: Course }) {
  const { t } = useWords();
  const { admin } = useSession();
  const confirm = useConfirm();
  const images = useImages();
  const image = images.data?.find((i) => i.id === course.image);
  const [name, setName] = useState(course.name);
  const [release, setRelease] = useState(course.follow_newest ? NEWEST : (course.release ?? NEWEST));
  const [size, setSize] = useState(course.size);
  const [persistence, setPersistence] = useState(course.persistence);
  const [spice, setSpice] = useState(course.spice);
  const save = useAction((body: CoursePatch) => courses.change(course.id, body), { stale: ["courses", "images"], done: t.common.saved });
  const remove = useAction(() => courses.remove(course.id), { stale: ["courses"], onDone: () => go("/courses") });

  const newest = image && newestOffered(image);
  const pinned = image?.releases.find((r) => r.id === (release === NEWEST ? newest?.id : release));
  const sealed = pinned?.size;
  const asSealed = !sealed || (sealed.vcpus === size.vcpus && sealed.memory_mib === size.memory_mib);

  const submit = () => {
    const body: CoursePatch = {};
    if (name.trim() !== course.name) body.name = name.trim();
    if (release === NEWEST) {
      if (!course.follow_newest) body.follow_newest = true;
    } else if (course.follow_newest || release !== course.release) body.release = release;
    if (size.vcpus !== course.size.vcpus || size.memory_mib !== course.size.memory_mib) body.size = size;
    if (persistence !== course.persistence) body.persistence = persistence;
    if (spice !== course.spice) body.spice = spice;
    save.run(body);
  };

  return (
    <form
      className="panel form"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <p className="muted">{t.courses.settingsLead}</p>
      <TextField label={t.courses.name} value={name} onChange={(e) => setName(e.target.value)} required maxLength={80} />
      <Select label={`${t.courses.releaseLabel} · ${course.image_name}`} value={release} onChange={(e) => setRelease(e.target.value)} hint={t.courses.rollback}>
        <option value={NEWEST}>{t.courses.follow(newest ? `v${newest.version}` : t.courses.noRelease)}</option>
        {(image?.releases ?? [])
          .filter((r) => r.state === "offered" || r.id === course.release)
          .map((r) => (
            <option key={r.id} value={r.id}>
              {t.courses.pin(r.version, r.note)}
            </option>
          ))}
      </Select>
      <Choice<"sealed" | "own">
        legend={t.courses.size}
        value={asSealed ? "sealed" : "own"}
        onChange={(value) => setSize(value === "sealed" && sealed ? sealed : { ...size, memory_mib: size.memory_mib + 256 })}
        options={[
          { value: "sealed", label: t.courses.sizeAsSealed },
          { value: "own", label: t.courses.sizeOwn, disabled: !sealed },
        ]}
      />
      {(!asSealed || !sealed) && <SizeFields size={size} onChange={setSize} />}
      <PersistenceChoice value={persistence} onChange={setPersistence} />
      <CheckBox label={t.courses.spiceLabel} checked={spice} onChange={(e) => setSpice(e.target.checked)} />
      <div className="row between wrap">
        <Button type="submit" look="primary" busy={save.busy}>
          {t.common.save}
        </Button>
        {admin && (
          <Button
            look="quiet"
            icon="trash"
            busy={remove.busy}
            onClick={() =>
              void confirm({ title: t.courses.deleteTitle(course.name), body: t.courses.deleteLoses, confirm: t.courses.delete, danger: true }).then((yes) => {
                if (yes) remove.run();
              })
            }
          >
            {t.courses.delete}
          </Button>
        )}
      </div>
    </form>
  );
}
