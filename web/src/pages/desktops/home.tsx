import { useCourses, useMyDesktops } from "../../api/queries";
import { useWords } from "../../i18n";
import { unmade } from "../../lib/seats";
import { useSession } from "../../shell/session";
import { Empty, LinkButton } from "../../ui/controls";
import { Loaded, PageHead } from "../../ui/pieces";
import { DesktopCard } from "./card";

export function HomePage() {
  const { t } = useWords();
  const { me, staff } = useSession();
  const desktops = useMyDesktops();
  const courses = useCourses();
  return (
    <>
      <PageHead title={t.home.title} lead={t.home.hello(me.user.name)} />
      <Loaded query={desktops} rows={2}>
        {(list) => {
          const have = new Set(list.map((d) => d.course));
          const coming = (courses.data ?? []).filter((c) => c.my_role === "student" && !have.has(c.id)).map((c) => unmade(c, me.user));
          const shown = [...list.filter((d) => d.desired !== "absent"), ...coming].sort((a, b) => a.course_name.localeCompare(b.course_name));
          if (shown.length === 0) {
            return (
              <Empty
                icon="desktop"
                title={t.home.empty}
                action={staff ? <LinkButton look="primary" to="/courses">{t.home.toCourses}</LinkButton> : undefined}
              >
                {staff ? t.home.emptyTeacher : t.home.emptyStudent}
              </Empty>
            );
          }
          return (
            <div className="desktop-cards">
              {shown.map((d) => (
                <DesktopCard key={d.course} desktop={d} />
              ))}
            </div>
          );
        }}
      </Loaded>
    </>
  );
}
