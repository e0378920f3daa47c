// Made-up state of a classroom, for developing and testing the page without one.
// Nothing in here is part of the product.
const now = Date.now();
let counter = 0;
export const newId = (kind) => `${kind}-${String(++counter).padStart(4, "0")}`;
const hex = (seed) => Array.from({ length: 64 }, (_, i) => "0123456789abcdef"[(seed * 7 + i * i * 3 + i * seed) % 16]).join("");

const size = { vcpus: 1, memory_mib: 768 };
const NAMES = ["王小明", "林雅婷", "陳冠宇", "張家豪", "李怡君", "黃柏翰", "吳欣怡", "劉俊傑", "蔡佩珊", "Ada Lin", "Grace Chen", "Alan Wu", "許志偉", "鄭淑芬", "謝宗翰", "郭美玲", "洪承恩", "邱詩涵", "曾子軒", "廖思妤", "賴冠廷", "徐語彤", "周宇翔", "葉芷瑄", "蘇柏宇", "莊雅雯", "呂承翰", "何心怡"];

export function makeState() {
  const user = (login, name, role, extra = {}) => ({ id: newId("user"), login, name, role, disabled: false, has_password: true, created: now - 86_400_000 * 40, ...extra });
  const admin = user("admin", "Mei Tsai", "admin");
  const teacher = user("lin", "林老師", "teacher");
  const students = NAMES.map((name, i) => user(`s11301${String(i + 1).padStart(2, "0")}`, name, "student", { has_password: i % 6 !== 5, disabled: i === 27 }));
  const release = (image, version, note, extra = {}) => ({ id: hex(version + image.length), image, version, state: "offered", size, cold_reason: null, virtual_bytes: 8 * 2 ** 30, bytes_on_disk: 1_930_000_000 + version * 90_000_000, used_by: [], note, sealed_by: "admin", sealed_at: now - 86_400_000 * (12 - version * 3), ...extra });

  const debian = { id: "image-debian", name: "Debian desktop", description: "Xfce, Python, Thonny, Firefox", created: now - 86_400_000 * 30, draft: null, releases: [] };
  debian.releases = [release(debian.id, 3, "Python 3.13, Thonny", { used_by: ["Introduction to Python", "28 desktops"] }), release(debian.id, 2, "Chinese input", { used_by: ["Office basics"] }), release(debian.id, 1, "first", { state: "retired" })];
  const cad = { id: "image-cad", name: "FreeCAD lab", description: "3D drawing for the workshop course", created: now - 86_400_000 * 3, draft: null, releases: [] };
  cad.draft = { id: "draft-cad", image: cad.id, state: "ready", detail: "", percent: null, phase: "stopped", host: null, from_release: null, size: { vcpus: 2, memory_mib: 1536 }, iso: true, owner: "lin", created: now - 3_600_000 };
  const tiny = { id: "image-new", name: "Windows 11", description: "", created: now - 3_000_000, draft: { id: "draft-new", image: "image-new", state: "empty", detail: "", percent: null, phase: "stopped", host: null, from_release: null, size, iso: false, owner: "admin", created: now }, releases: [] };

  const course = (id, name, release, extra) => ({ id, name, image: debian.id, image_name: debian.name, release: release.id, release_version: release.version, follow_newest: true, size, persistence: "throwaway", outside: false, spice: false, my_role: "teacher", students: 0, running: 0, cold_reason: null, created: now, ...extra });
  const courses = [
    course("course-py", "Introduction to Python", debian.releases[0], {}),
    course("course-office", "文書處理", debian.releases[1], { follow_newest: false, persistence: "persistent", outside: true, size: { vcpus: 2, memory_mib: 1024 }, cold_reason: "the desktop size is not the one that v2 was sealed with (1 CPU, 768 MiB)" }),
  ];
  const members = [
    { course: "course-py", user: teacher.id, role: "teacher" },
    { course: "course-py", user: admin.id, role: "teacher" },
    ...students.map((s) => ({ course: "course-py", user: s.id, role: "student" })),
    ...students.slice(0, 6).map((s) => ({ course: "course-office", user: s.id, role: "student" })),
    { course: "course-office", user: admin.id, role: "teacher" },
  ];
  const desktop = (courseId, user, phase, extra = {}) => {
    const c = courses.find((x) => x.id === courseId);
    return { id: newId("desktop"), course: c.id, course_name: c.name, user: user.id, user_name: user.name, desired: phase === "running" ? "running" : "stopped", phase, detail: "", host: phase === "stopped" || phase === "suspended" ? null : `host-${(counter % 3) + 1}`, release: c.release, size: c.size, persistence: c.persistence, started_by: phase === "running" ? "fork" : null, cold_reason: null, address: phase === "running" ? `10.77.${(counter % 3) + 1}.${10 + (counter % 200)}` : null, usable_ms: phase === "running" ? 380 + ((counter * 137) % 900) : null, pss_kib: phase === "running" ? 38_000 + ((counter * 7919) % 32_000) : 0, cpu_percent: phase === "running" ? (counter * 31) % 17 : 0, read_bytes: 0, delta_bytes: null, suspend_ms: null, notice: null, changed: now - 60_000 * (counter % 50), ...extra };
  };
  const desktops = [
    ...students.map((s, i) => desktop("course-py", s, i < 22 ? "running" : i === 22 ? "starting" : i === 23 ? "failed" : i === 24 ? "suspended" : i === 25 ? "unknown" : "stopped", i === 22 ? { detail: "Waiting for its network address" } : i === 23 ? { detail: "QEMU ended by itself: signal 9. Start it again, or reset it." } : i === 24 ? { desired: "suspended", delta_bytes: 31_400_000, suspend_ms: 290 } : i === 25 ? { desired: "running", detail: "host-3 has not been heard for 24 s" } : i === 4 ? { notice: "Its host was lost at 09:14 and it was started again; what was not saved is gone." } : {})),
    desktop("course-py", admin, "running", { usable_ms: 412 }),
    ...students.slice(0, 6).map((s, i) => desktop("course-office", s, i < 2 ? "running" : "stopped", i < 2 ? { started_by: "cold", usable_ms: 24_800, pss_kib: 612_000, cold_reason: courses[1].cold_reason } : {})),
    desktop("course-office", admin, "suspended", { desired: "suspended", delta_bytes: 27_900_000, suspend_ms: 240 }),
  ];
  const failed = desktops.find((d) => d.phase === "failed");
  const operation = (kind, target, target_name, state, extra = {}) => ({ id: newId("operation"), kind, target, target_name, requested_by: "lin", state, total: 1, done: state === "done" ? 1 : 0, step: "", failures: [], created: now - 60_000 * (counter % 90), ended: state === "running" ? null : now - 60_000 * (counter % 90) + 1700 + ((counter * 911) % 9000), ...extra });
  const operations = [
    operation("course.start", "course/course-py", "Introduction to Python", "running", { total: 28, done: 23, step: "Waiting for network addresses", created: now - 7000 }),
    operation("draft.seal", "draft/draft-cad", "FreeCAD lab", "running", { step: "Booting once; waiting until the guest says it is ready", created: now - 41_000 }),
    operation("course.start", "course/course-py", "Introduction to Python", "failed", { total: 28, done: 27, failures: [{ target: `desktop/${failed.id}`, name: failed.user_name, message: "QEMU ended before the desktop was usable: signal 9 (out of memory on host-2). Start it again; if it happens often, lower the over-commit in the settings." }] }),
    operation("desktop.reset", `desktop/${desktops[0].id}`, "王小明 · Introduction to Python", "done"),
    operation("course.hand-out", "course/course-py", "Introduction to Python", "done", { total: 20, done: 20 }),
    operation("course.suspend", "course/course-office", "文書處理", "cancelled", { total: 6, done: 3 }),
  ];
  const hosts = [1, 2, 3].map((n) => {
    const mine = desktops.filter((d) => d.host === `host-${n}` && d.phase === "running");
    return { id: `host-${n}`, url: `https://127.0.0.${10 + n}:7443`, state: n === 3 ? "draining" : "active", online: true, last_heard: now, warnings: ["KVM does not work on this machine (/dev/kvm opens, but a trial guest did not run): desktops run in software emulation, several times slower."], accelerator: "tcg", qemu_version: "10.0.2", cpus: 2, memory_mib: 8192, nominal_mib: mine.length * 768, nominal_limit_mib: 65_536, desktops_pss_mib: Math.round(mine.reduce((s, d) => s + d.pss_kib, 0) / 1024), available_mib: 6100 - n * 300, cpu_percent: 20 + n * 9, desktops_cpu_percent: 15 + n * 7, memory_pressure: n * 0.2, desktops: mine.length, refuses_because: null, power: { state: "on", since: now - 7_200_000, wanted: null, failure: "", failed_at: null, not_switchable: null, watts: 130, reserve: false, maintenance: false, group: null }, recent: Array.from({ length: 90 }, (_, i) => ({ at: now - (90 - i) * 5000, cpu_percent: Math.max(2, 22 + 18 * Math.sin(i / 9 + n) + ((i * 37 * n) % 13) + (i > 70 ? 30 * Math.exp(-(i - 70) / 8) : 0)), desktops_pss_mib: i < 68 ? 120 : Math.min(420, 120 + (i - 68) * 40) + ((i * n) % 7), desktops: i < 68 ? 2 : mine.length })) };
  });
  const storage = { online: true, driver: "qcow2", fast: { total_bytes: 480e9, free_bytes: 412e9, used_bytes: 6.4e9 }, slow: { total_bytes: 4e12, free_bytes: 3.1e12, used_bytes: 21e9 }, same_device: false, warnings: [] };
  const audit = Array.from({ length: 60 }, (_, i) => ({ id: 600 - i, at: now - i * 411_000, actor: ["lin", "admin", "system", "local"][i % 4], action: ["course.start", "desktop.reset", "session.create", "roster.apply", "draft.seal"][i % 5], target: ["course/course-py", `desktop/${desktops[i % 20].id}`, `user/${students[i % 20].id}`][i % 3], detail: ["28 desktops", "", "王小明", "4 added, 1 removed"][i % 4], address: i % 4 === 2 ? "" : "127.0.0.1" }));
  const policy = { mode: "power-saving", ordered: false, pause_minutes: 30, stale_after_s: 180, overcommit: 8, spread_owner: "prefer", spread_course: "off", balance_by: "auto", balance_min_gain: 0.5, off_threshold_seats: 18, on_threshold_seats: 6, min_hosts: 1, seat_mib: null, min_on_minutes: 30, min_off_minutes: 5, cpu_high: 80, cpu_low: 30, cpu_lasting: 0.7, cpu_min_gain: 1 };
  const allocation = { settings: { automatic: true, every_minutes: 5, average_minutes: 10, wake_timeout_s: 300, off_timeout_s: 180, settle_s: 120, keep_minutes_h: 48, keep_tens_days: 42, policy }, mode: "power-saving", mode_reason: "the settings say so", seats_needed: 0, last_acted_at: now - 1_200_000, not_before: now + 600_000, running: null, next_look: now + 180_000, last_look: { at: now - 120_000, plan: "plan-0", state: "idle", why: [{ what: "power-saving", why: "a plan was carried out 18 min ago; the next comes 30 min after it, or when a person orders it" }] } };
  const cluster = (on, free) => ({ hosts_on: on, desktops: 20, free_seats: free, used_mib: 9000, spread_percent: 4.2, fullest_percent: 40, watts: 130 * on, hosts: [] });
  const plans = [{ id: "plan-1", at: now - 60_000, mode: "power-saving", mode_reason: "the settings say so", ordered_by: "admin", state: "shown", message: "", steps: [{ action: "move", host: "host-1", from: "host-2", desktop: desktops[0].id, name: "王小明, Introduction to Python", reason: "host-2 is emptied and switched off; 20 seats stay free on 2 hosts", state: "waiting", message: "", operation: null, price: { way: "delta", travels_mib: 8.7, memory_mib: 56, more_mib: 0, seconds: 0.15 } }, { action: "off", host: "host-2", from: null, desktop: null, name: "", reason: "the other hosts have seats enough", state: "waiting", message: "", operation: null }], price: { travels_mib: 8.7, more_mib: 0, seconds: 0.15 }, not_done: [{ what: "host-1", why: "stays on: at least 1 stay on" }], before: cluster(3, 40), after: cluster(2, 20), acted_at: null, ended: now - 60_000, wordings: { "host-2 is emptied and switched off; 20 seats stay free on 2 hosts": { code: "plan.emptied", params: { host: "host-2", seats: "20", hosts: "2" } } } }];
  const settings = { classroom_name: "Lyceum", overcommit: 8, seats_per_host: 0, starts_at_once: 4, fork_timeout_s: 60, cold_timeout_s: 600, session_idle_minutes: 720 };
  return { users: [admin, teacher, ...students], images: [debian, cad, tiny], courses, members, desktops, operations, hosts, storage, audit, settings, allocation, plans };
}
