import { useState } from "react";
import { courses as orders } from "../../api/actions";
import { useCourses, useImages } from "../../api/queries";
import type { Course, Persistence } from "../../api/types";
import { useWords } from "../../i18n";
import { sizeText } from "../../lib/format";
import { go } from "../../router";
import { Button, CheckBox, Choice, Empty, LinkButton, Notice, Select, Tag, TextField } from "../../ui/controls";
import { FormDialog } from "../../ui/dialog";
import { Loaded, Meter, PageHead } from "../../ui/pieces";
import { useAction } from "../../ui/toast";
import { newestOffered } from "../images/flow";

export function CoursesPage() {
  const { t } = useWords();
  const courses = useCourses();
  const [making, setMaking] = useState(false);
  return (
    <>
      <PageHead title={t.courses.title} lead={t.courses.lead}>
        <Button look="primary" icon="plus" onClick={() => setMaking(true)}>
          {t.courses.new}
        </Button>
      </PageHead>
      <Loaded query={courses}>
        {(list) =>
          list.length === 0 ? (
            <Empty icon="course" title={t.courses.none}>
              {t.courses.noneHint}
            </Empty>
          ) : (
            <div className="course-cards">
              {list.map((course) => (
                <CourseCard key={course.id} course={course} />
              ))}
            </div>
          )
        }
      </Loaded>
      {making && <NewCourse onClose={() => setMaking(false)} />}
    </>
  );
}

function CourseCard({ course }: { course: Course }) {
  const { t } = useWords();
  const running = t.courses.runningOf(course.running, Math.max(course.students, course.running));
  return (
    <article className="panel course-card">
      <h2>
        <a href={`#/courses/${course.id}`} className="cover-link">
          {course.name}
        </a>
      </h2>
      <p className="muted">
        {course.image_name} · {course.release_version ? t.courses.release(course.release_version) : t.courses.noRelease}
        {course.release_version ? ` (${course.follow_newest ? t.courses.followNewest : t.courses.pinned})` : ""}
      </p>
      <Meter label={t.overview.running} value={course.running} max={Math.max(1, course.students, course.running)} text={running} />
      <p className="row between">
        <span className="num">{running}</span>
        <span className="muted">{t.courses.students(course.students)}</span>
      </p>
      <p className="row wrap">
        <Tag>{sizeText(course.size, t)}</Tag>
        <Tag>{course.persistence === "throwaway" ? t.desktop.throwaway : t.desktop.persistent}</Tag>
        {course.outside && <Tag>{t.courses.outside}</Tag>}
      </p>
      {course.cold_reason && (
        <Notice>
          {t.courses.coldReason} {t.say(course.cold_reason)}
        </Notice>
      )}
    </article>
  );
}

function NewCourse({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const images = useImages();
  const usable = (images.data ?? []).filter((i) => newestOffered(i));
  const [name, setName] = useState("");
  const [image, setImage] = useState("");
  const [persistence, setPersistence] = useState<Persistence>("throwaway");
  const [outside, setOutside] = useState(false);
  const create = useAction(orders.create, { stale: ["courses"], onDone: (course) => go(`/courses/${course.id}/roster`) });
  const chosen = image || usable[0]?.id || "";
  return (
    <FormDialog title={t.courses.new} onClose={onClose} submit={t.common.create} busy={create.busy} disabled={!chosen} onSubmit={() => create.run({ name: name.trim(), image: chosen, persistence, outside })}>
      {images.data && usable.length === 0 && (
        <Notice tone="warn">
          <p>{t.courses.needImage}</p>
          <LinkButton size="small" to="/images">
            {t.nav.images}
          </LinkButton>
        </Notice>
      )}
      <TextField label={t.courses.name} value={name} onChange={(e) => setName(e.target.value)} required maxLength={80} autoFocus />
      <Select label={t.courses.image} value={chosen} onChange={(e) => setImage(e.target.value)} required>
        {usable.map((i) => (
          <option key={i.id} value={i.id}>
            {i.name} · v{newestOffered(i)?.version}
          </option>
        ))}
      </Select>
      <PersistenceChoice value={persistence} onChange={setPersistence} />
      <CheckBox label={t.courses.outsideLabel} checked={outside} onChange={(e) => setOutside(e.target.checked)} />
    </FormDialog>
  );
}

export function PersistenceChoice({ value, onChange }: { value: Persistence; onChange: (value: Persistence) => void }) {
  const { t } = useWords();
  return (
    <Choice<Persistence>
      legend={t.courses.persistence}
      value={value}
      onChange={onChange}
      options={[
        { value: "throwaway", label: t.courses.throwaway },
        { value: "persistent", label: t.courses.persistent },
      ]}
    />
  );
}
