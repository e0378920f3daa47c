// One course: its class, its roster, its settings.
import { useCourses } from "../../api/queries";
import { useWords } from "../../i18n";
import { sizeText } from "../../lib/format";
import { Notice } from "../../ui/controls";
import { Loaded, PageHead } from "../../ui/pieces";
import { ClassPoints } from "../restore-points/class-points";
import { ClassView, MyDesktop } from "./class";
import { CourseNetworkPanel } from "./course-network";
import { CourseSettings } from "./course-settings";
import { Roster } from "./roster";

export type CourseTab = "class" | "roster" | "points" | "settings";

export function CoursePage({ id, tab }: { id: string; tab: CourseTab }) {
  const { t } = useWords();
  const courses = useCourses();
  return (
    <Loaded query={courses}>
      {(list) => {
        const course = list.find((c) => c.id === id);
        if (!course) return <PageHead title={t.common.notFound} />;
        const lead = [course.image_name, course.release_version ? t.courses.release(course.release_version) : t.courses.noRelease, sizeText(course.size, t), course.persistence === "throwaway" ? t.desktop.throwaway : t.desktop.persistent].join(" · ");
        const tabs: [CourseTab, string, string][] = [
          ["class", t.courses.tabs.class, `/courses/${id}`],
          ["roster", t.courses.tabs.roster, `/courses/${id}/roster`],
          ["points", t.courses.tabs.points, `/courses/${id}/points`],
          ["settings", t.courses.tabs.settings, `/courses/${id}/settings`],
        ];
        return (
          <>
            <PageHead title={course.name} lead={lead} back={{ to: "/courses", label: t.nav.courses }}>
              {course.my_role === "teacher" && <MyDesktop course={course} />}
            </PageHead>
            <nav className="tabs" aria-label={course.name}>
              {tabs.map(([name, label, to]) => (
                <a key={name} href={`#${to}`} aria-current={name === tab ? "page" : undefined}>
                  {label}
                  {name === "roster" && <span className="count">{course.students}</span>}
                </a>
              ))}
            </nav>
            {course.cold_reason && (
              <Notice>
                {t.courses.coldReason} {t.say(course.cold_reason)}
              </Notice>
            )}
            {tab === "class" && <ClassView course={course} />}
            {tab === "roster" && <Roster course={course} />}
            {tab === "points" && <ClassPoints course={course} />}
            {tab === "settings" && (
              <div className="stack">
                <CourseSettings key={course.id} course={course} />
                <CourseNetworkPanel course={course} />
              </div>
            )}
          </>
        );
      }}
    </Loaded>
  );
}
