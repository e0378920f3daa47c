// A desktop comes into being with its first start; until then its seat is shown all the same. Pure.
import type { Course, Desktop, Member } from "../api/types";

/** The desktop that somebody will have: off, and without an id. */
export function unmade(course: Course, user: { id: string; name: string }): Desktop {
  return {
    id: "",
    course: course.id,
    course_name: course.name,
    user: user.id,
    user_name: user.name,
    desired: "stopped",
    phase: "stopped",
    detail: "",
    size: course.size,
    persistence: course.persistence,
    pss_kib: 0,
    cpu_percent: 0,
    read_bytes: 0,
    changed: course.created,
  };
}

/** Every seat of a class: the desktops there are, and one for each student who has none yet. */
export function seatsOf(course: Course, desktops: readonly Desktop[], members: readonly Member[]): Desktop[] {
  const have = new Set(desktops.map((d) => d.user));
  const login = new Map(members.map((m) => [m.user, m.login]));
  const missing = members.filter((m) => m.role === "student" && !have.has(m.user)).map((m) => unmade(course, { id: m.user, name: m.name }));
  const order = (d: Desktop) => login.get(d.user) ?? d.user_name;
  return [...desktops.filter((d) => d.desired !== "absent"), ...missing].sort((a, b) => order(a).localeCompare(order(b), undefined, { numeric: true }));
}
