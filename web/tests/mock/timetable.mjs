// The timetable of the stand-in: lessons of its courses in any week.
const day = (date, n) => new Date(Date.parse(`${date}T00:00:00Z`) + n * 86_400_000).toISOString().slice(0, 10);
const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const monday = (date) => day(date, -((new Date(`${date}T00:00:00Z`).getUTCDay() + 6) % 7));

export function timetableRoutes(s, { change, newId, find }) {
  const rules = { zone: "Asia/Taipei", acts: true, lead_floor_minutes: 5, lead_ceiling_minutes: 45, lead_percent: 150, hosts_before_minutes: 10, class_before_minutes: 30, class_after_minutes: 0, class_bridge_minutes: 180, class_mode: "memory-balance", other_mode: "power-saving" };
  const today = new Date().toISOString().slice(0, 10);
  const ofCourse = new Map(s.courses.map((c) => [c.id, { starts: true, at_end: "suspend", grace_minutes: 5 }]));
  const lessons = [];
  const add = (b) => {
    const course = find(s.courses, b.course, "course");
    const lesson = { id: newId("lesson"), title: "", room: null, weekday: null, date: null, every_weeks: 1, from: null, until: null, zone: null, imported: false, may_edit: true, exceptions: [], ...b, course_name: course.name };
    lesson.every_weeks ??= 1;
    lessons.push(lesson);
    change("timetable", course.id);
    return lesson;
  };
  const slots = [["mon", "08:10", "10:00", "A203"], ["wed", "10:10", "12:00", "A203"], ["thu", "13:10", "15:00", "B105"], ["fri", "08:10", "10:00", "B105"], ["tue", "10:10", "12:00", "A203"], ["mon", "08:30", "09:20", "A203"]];
  slots.forEach(([weekday, begin, end, room], i) => add({ course: s.courses[i % s.courses.length].id, weekday, begin, end, room }));
  const days = [{ id: "days-1", kind: "term", name: "一一五學年度第一學期", first: day(monday(today), -84), last: day(monday(today), 60) }, { id: "days-2", kind: "holiday", name: "校慶補假", first: day(monday(today), 3), last: day(monday(today), 3) }];
  const occurrences = (first, count) => {
    const found = [];
    for (let n = 0; n < count; n++) {
      const date = day(first, n);
      const off = days.some((d) => d.kind === "holiday" && d.first <= date && date <= d.last);
      for (const l of lessons) {
        const exception = l.exceptions.find((e) => e.date === date);
        if (l.date !== date && (off || exception || l.weekday !== DAYS[(new Date(`${date}T00:00:00Z`).getUTCDay() + 6) % 7])) continue;
        const at = (clock) => Date.parse(`${date}T${clock}:00+08:00`);
        const [begin, end] = [at(l.begin), at(l.end)];
        const now = Date.now();
        found.push({ lesson: l.id, course: l.course, course_name: l.course_name, title: l.title, room: l.room, date, day: date, begin_clock: l.begin, end_clock: l.end, begin, end, moved: false, clashes: false, state: now < begin ? "planned" : now < end ? "on" : "done", note: "", start_operation: null });
      }
    }
    for (const a of found) a.clashes = found.some((b) => a !== b && (a.room === b.room || a.course === b.course) && a.begin < b.end && b.begin < a.end);
    return found.sort((a, b) => a.begin - b.begin);
  };
  const preview = (b) => {
    const summaries = [...b.ics.matchAll(/^SUMMARY:(.*)$/gm)].map((m) => m[1].trim());
    const lessons = summaries.map((summary, i) => {
      const course = s.courses.find((c) => c.id === (b.course ?? b.courses?.[summary]) || c.name === summary);
      return { line: 3 + 7 * i, summary, course_name: course?.name ?? null, room: "A203", weekday: DAYS[i % 5], date: null, begin: "08:10", end: "10:00", every_weeks: 1, from: today, until: null, exceptions: 0, change: "new" };
    });
    return { lessons, holidays: [], problems: b.ics.includes("MONTHLY") ? [{ line: 12, summary: "Club", message: "it recurs MONTHLY; only weekly and daily events are taken over" }] : [], unknown_courses: lessons.filter((l) => !l.course_name).map((l) => l.summary), removed: 0 };
  };
  return [
    ["GET", "timetable", () => ({ rules, days, lessons, courses: s.courses.map((c) => ({ course: c.id, name: c.name, may_edit: true, rules: ofCourse.get(c.id) ?? { starts: true, at_end: "suspend", grace_minutes: 5 } })), modes: ["none", "memory-balance", "compute-balance", "power-saving", "memory-balance-paper", "power-saving-paper"] })],
    ["GET", "timetable/week", (_, __, q) => {
      const first = q.get("first") ?? monday(today);
      const all = occurrences(first, 7).filter((o) => (!q.get("course") || o.course === q.get("course")) && (!q.get("room") || o.room === q.get("room")));
      return { zone: rules.zone, days: Array.from({ length: 7 }, (_, n) => { const date = day(first, n); const holiday = days.find((d) => d.kind === "holiday" && d.first <= date && date <= d.last); return { date, school: !holiday, holiday: holiday?.name ?? null }; }), occurrences: all, rooms: [...new Set(lessons.map((l) => l.room).filter(Boolean))].sort() };
    }],
    ["GET", "timetable/now", () => ({ at: Date.now(), hours: "class", until: Date.now() + 5_400_000, mode: rules.class_mode, seats_wanted: 12, seats_until: null, running: [], next: occurrences(today, 7).slice(0, 2) })],
    ["PATCH", "timetable/rules", (_, b) => (Object.assign(rules, b), change("timetable"), rules)],
    ["POST", "timetable/lessons", (_, b) => add(b)],
    ["PUT", "timetable/lessons/:id", (p, b) => (change("timetable"), Object.assign(find(lessons, p.id, "lesson"), b))],
    ["DELETE", "timetable/lessons/:id", (p) => (change("timetable"), void lessons.splice(lessons.indexOf(find(lessons, p.id, "lesson")), 1))],
    ["PUT", "timetable/lessons/:id/exceptions/:date", (p, b) => { const l = find(lessons, p.id, "lesson"); l.exceptions = [...l.exceptions.filter((e) => e.date !== p.date), { date: p.date, ...b }]; change("timetable"); return l; }],
    ["DELETE", "timetable/lessons/:id/exceptions/:date", (p) => { const l = find(lessons, p.id, "lesson"); l.exceptions = l.exceptions.filter((e) => e.date !== p.date); change("timetable"); return l; }],
    ["POST", "timetable/days", (_, b) => { const d = { id: newId("days"), ...b }; days.push(d); change("timetable"); return d; }],
    ["PUT", "timetable/days/:id", (p, b) => (change("timetable"), Object.assign(find(days, p.id, "term or holiday"), b))],
    ["DELETE", "timetable/days/:id", (p) => (change("timetable"), void days.splice(days.indexOf(find(days, p.id, "term or holiday")), 1))],
    ["PUT", "courses/:id/timetable", (p, b) => (change("timetable"), Object.assign(ofCourse.get(p.id), b))],
    ["POST", "timetable/import/preview", (_, b) => preview(b)],
    ["POST", "timetable/import", (_, b) => { const result = preview(b); for (const l of result.lessons) { const c = s.courses.find((c) => c.name === l.course_name); if (c) add({ course: c.id, weekday: l.weekday, begin: l.begin, end: l.end, room: l.room, imported: true }); } return result; }],
  ];
}
