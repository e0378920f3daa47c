// How far out a course's desktops reach, whether they reach each other, and examinations.
import { useState } from "react";
import { courses } from "../../api/actions";
import { useCourseNetwork } from "../../api/queries";
import type { Course, CourseNetwork, Internet } from "../../api/types";
import { useWords } from "../../i18n";
import { dateTime } from "../../lib/format";
import { Button, CheckBox, Choice, Notice, TextArea, TextField } from "../../ui/controls";
import { useConfirm } from "../../ui/dialog";
import { Loaded } from "../../ui/pieces";
import { useAction } from "../../ui/toast";

const STALE = ["courses"];

export function CourseNetworkPanel({ course }: { course: Course }) {
  const { t } = useWords();
  const network = useCourseNetwork(course.id);
  return (
    <section className="panel" aria-labelledby="network">
      <h2 id="network">{t.network.title}</h2>
      <p className="muted">{t.network.lead}</p>
      <Loaded query={network} rows={3}>
        {(n) => (
          <div className="stack">
            {n.problem && (
              <Notice tone="warn">
                {t.network.gatewayProblem} {t.say(n.problem)}
              </Notice>
            )}
            {!n.enforced && <p className="muted">{t.network.userNetwork}</p>}
            {/* What was saved elsewhere begins anew. */}
            <Policy key={`${n.internet} ${n.among_themselves} ${n.allowed.join(" ")}`} course={course} network={n} />
            {n.enforced && <Exam course={course} network={n} />}
          </div>
        )}
      </Loaded>
    </section>
  );
}

function Policy({ course, network }: { course: Course; network: CourseNetwork }) {
  const { t } = useWords();
  const [internet, setInternet] = useState<Internet>(network.internet);
  const [allowed, setAllowed] = useState(network.allowed.join("\n"));
  const [among, setAmong] = useState(network.among_themselves);
  const save = useAction(
    () =>
      courses.setNetwork(course.id, {
        internet,
        allowed: allowed.split(/\s+/).filter((d) => d !== ""),
        among_themselves: among,
      }),
    { stale: STALE, done: t.common.saved },
  );
  return (
    <form
      className="form"
      onSubmit={(event) => {
        event.preventDefault();
        save.run();
      }}
    >
      <Choice<Internet>
        legend={t.network.internet}
        value={internet}
        onChange={setInternet}
        options={[
          { value: "on", label: t.network.on, hint: t.network.onHint },
          { value: "off", label: t.network.off },
          { value: "list", label: t.network.list, disabled: !network.enforced },
        ]}
      />
      {network.enforced && (
        <>
          <TextArea label={t.network.allowed} hint={t.network.allowedHint} value={allowed} onChange={(e) => setAllowed(e.target.value)} rows={4} spellCheck={false} />
          <CheckBox label={t.network.among} checked={among} onChange={(e) => setAmong(e.target.checked)} />
        </>
      )}
      <div className="row">
        <Button type="submit" look="primary" busy={save.busy}>
          {t.common.save}
        </Button>
      </div>
    </form>
  );
}

function Exam({ course, network }: { course: Course; network: CourseNetwork }) {
  const { t, locale } = useWords();
  const confirm = useConfirm();
  const [minutes, setMinutes] = useState("60");
  const count = Number(minutes);
  const fits = Number.isInteger(count) && count >= 1 && count <= 1440;
  const begin = useAction(() => courses.beginExam(course.id, Date.now() + count * 60_000), { stale: STALE });
  const end = useAction(() => courses.endExam(course.id), { stale: STALE });
  const ask = async () => {
    const yes = await confirm({ title: t.network.examTitle, body: t.network.examBody, confirm: t.network.examBegin, danger: true });
    if (yes) begin.run();
  };
  return (
    <div className="stack">
      <h3>{t.network.exam}</h3>
      <p className="muted">{t.network.examLead}</p>
      {network.exam_until != null && <Notice>{t.network.examUntil(dateTime(network.exam_until, locale))}</Notice>}
      <div className="row wrap low">
        <TextField label={t.network.examMinutes} type="number" min={1} max={1440} value={minutes} onChange={(e) => setMinutes(e.target.value)} />
        <Button busy={begin.busy} disabled={!fits} onClick={() => void ask()}>
          {network.exam_until != null ? t.network.examChange : t.network.examBegin}
        </Button>
        {network.exam_until != null && (
          <Button look="primary" busy={end.busy} onClick={() => end.run()}>
            {t.network.examEnd}
          </Button>
        )}
      </div>
    </div>
  );
}
