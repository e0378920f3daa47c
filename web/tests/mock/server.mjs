// A stand-in for the controller, for developing the page and for tests of the page alone.
// It knows no rights and keeps nothing; the real one is `lyceum up`.
// One-time link of the admin: /#/welcome/first
//   node tests/mock/server.mjs [port]      serves ../../dist and /api/v1
// Sign in as admin, lin (teacher) or s1130101 (student); any password but "wrong".
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import { serveRfb } from "./rfb.mjs";
import { makeState, newId } from "./state.mjs";
import { timetableRoutes } from "./timetable.mjs";

const CSP = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:";
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2", ".md": "text/plain; charset=utf-8" };
const dist = join(fileURLToPath(new URL(".", import.meta.url)), "../../dist");

export function startMock(port = 0) {
  const s = makeState();
  const listeners = new Set();
  const tickets = new Map();
  const screens = new Map();
  const consoles = new Set();
  const clip = new Map();
  const sessions = new Map();
  const secrets = new Map([["first", s.users[0]]]);
  let nextSession = 1;
  // Whose request is being answered; answers are made without waiting in between.
  let signedIn = null;
  let setCookie = null;
  const enter = (user) => {
    const sid = `mock-${nextSession++}`;
    sessions.set(sid, user);
    signedIn = user;
    setCookie = `lyceum_session=${sid}; Path=/; HttpOnly; SameSite=Strict`;
    return me();
  };
  const desktopFor = (c, user) => {
    const found = s.desktops.find((d) => d.course === c.id && d.user === user.id);
    if (found) return found;
    const made = { id: newId("desktop"), course: c.id, course_name: c.name, user: user.id, user_name: user.name, desired: "stopped", phase: "stopped", detail: "", host: null, release: c.release, size: c.size, persistence: c.persistence, started_by: null, cold_reason: null, address: null, usable_ms: null, pss_kib: 0, cpu_percent: 0, delta_bytes: null, suspend_ms: null, notice: null, changed: Date.now() };
    s.desktops.push(made);
    change("desktop", made.id);
    return made;
  };

  const change = (kind, id = "") => {
    for (const res of listeners) res.write(`event: change\ndata: ${JSON.stringify({ kind, id })}\n\n`);
  };
  const fail = (status, code, message) => Object.assign(new Error(message), { status, code });
  const find = (list, id, what) => list.find((x) => x.id === id) ?? raise(fail(404, "not_found", `There is no ${what} ${id}.`));
  const raise = (e) => {
    throw e;
  };
  const seen = (d) => (signedIn.role === "student" ? { ...d, host: null } : d);
  const courseView = (c) => ({ ...c, my_role: s.members.find((m) => m.course === c.id && m.user === signedIn.id)?.role ?? null, students: s.members.filter((m) => m.course === c.id && m.role === "student").length, running: s.desktops.filter((d) => d.course === c.id && d.phase === "running").length });
  const network = (c) => c.network ?? { internet: c.outside ? "on" : "off", allowed: [], among_themselves: false, exam_until: null, segment: 1, enforced: true, problem: null };
  const me = () => ({ user: signedIn, session: "session-1", classroom_name: s.settings.classroom_name, csrf: "mock-csrf" });

  function operate(kind, target, name, desktops, each) {
    const o = { id: newId("operation"), kind, target, target_name: name, requested_by: signedIn?.login ?? "system", state: "running", total: desktops.length, done: 0, step: "", failures: [], created: Date.now(), ended: null };
    s.operations.unshift(o);
    change("operation", o.id);
    desktops.forEach((d, i) =>
      setTimeout(() => {
        each(d, () => {
          o.done += 1;
          if (o.done === o.total) Object.assign(o, { state: "done", ended: Date.now() });
          change("operation", o.id);
        });
      }, 60 * i),
    );
    if (desktops.length === 0) Object.assign(o, { state: "done", ended: Date.now() });
    return { operation: o.id };
  }
  const go = (d, steps, done) => {
    const [first, ...rest] = steps;
    if (!first) return done();
    Object.assign(d, first.set, { changed: Date.now() });
    change("desktop", d.id);
    setTimeout(() => go(d, rest, done), first.ms ?? 0);
  };
  const orders = {
    start: (d, done) => (d.phase === "running" ? done() : go(d, [{ set: { desired: "running", phase: "starting", detail: "Forking from the release" }, ms: 250 }, { set: { detail: "Waiting for its network address" }, ms: 300 }, { set: { phase: "running", detail: "", host: "host-1", started_by: d.phase === "suspended" ? "resume" : "fork", usable_ms: 612, pss_kib: 41_200, cpu_percent: 3, address: "10.77.1.9", notice: null } }], done)),
    stop: (d, done) => go(d, [{ set: { desired: "stopped", phase: "stopping" }, ms: 300 }, { set: { phase: "stopped", host: null, usable_ms: null, detail: "" } }], done),
    suspend: (d, done) => go(d, [{ set: { desired: "suspended", phase: "suspending", detail: "Writing changed pages" }, ms: 400 }, { set: { phase: "suspended", host: null, detail: "", delta_bytes: 29_000_000, suspend_ms: 310 } }], done),
    reset: (d, done) => {
      for (const ws of consoles) ws.close();
      go(d, [{ set: { desired: "running", phase: "stopping", detail: "" }, ms: 150 }, { set: { phase: "starting", detail: "Forking from the release" }, ms: 500 }, { set: { phase: "running", usable_ms: 530, started_by: "fork", detail: "" } }], done);
    },
  };

  const rosterChange = (courseId, body, apply) => {
    const out = { create: [], add: [], change: [], remove: [], unchanged: 0, problems: [], links: [] };
    const [header = "", ...lines] = body.csv.trim().split(/\r?\n/);
    const columns = header.split(/[,;\t]/).map((x) => x.trim().toLowerCase());
    if (!columns.includes("login")) out.problems.push({ line: 1, message: "The header line has no column 'login'. Begin the file with: login,name,role" });
    else
      lines.forEach((line, i) => {
        const row = Object.fromEntries(line.split(/[,;\t]/).map((v, c) => [columns[c], v.trim()]));
        const entry = { login: row.login, name: row.name || row.login, role: row.role || "student" };
        if (!["student", "teacher"].includes(entry.role)) return out.problems.push({ line: i + 2, message: `The role '${entry.role}' is not known: use student or teacher.` });
        let user = s.users.find((u) => u.login === entry.login);
        if (!user) {
          out.create.push(entry);
          if (apply) {
            user = { id: newId("user"), login: entry.login, name: entry.name, role: "student", disabled: false, has_password: false, created: Date.now() };
            s.users.push(user);
            const secret = newId("secret");
            secrets.set(secret, user);
            out.links.push({ login: entry.login, path: `/#/welcome/${secret}` });
          }
        }
        const member = user && s.members.find((m) => m.course === courseId && m.user === user.id);
        if (!member) {
          out.add.push(entry);
          if (apply) {
            s.members.push({ course: courseId, user: user.id, role: entry.role });
          }
        } else if (member.role !== entry.role) out.change.push(entry);
        else out.unchanged += 1;
      });
    return out;
  };

  const draftOf = (id) => find(s.images.flatMap((i) => (i.draft ? [i.draft] : [])), id, "draft");
  const routes = [
    ["GET", "session", () => me()],
    ["POST", "session", (_, b) => {
      const user = s.users.find((u) => u.login === b.login);
      if (!user || b.password === "wrong") throw fail(401, "wrong_credentials", "The sign-in name or the password is not right. Check both; after several failures there is a short wait.");
      return enter(user);
    }],
    ["POST", "session/one-time", (_, b) => {
      const user = secrets.get(b.secret);
      if (!user) throw fail(401, "link_used", "This one-time link was used or has expired. Ask for a new one.");
      secrets.delete(b.secret);
      return enter(user);
    }],
    ["DELETE", "session", (_, __, ___, sid) => void sessions.delete(sid)],
    ["GET", "sessions", () => [{ id: "session-1", created: Date.now() - 1e7, last_seen: Date.now() - 20_000, client: "Mozilla/5.0 (X11; Linux x86_64) Chrome/140 Safari/537", address: "127.0.0.1", current: true }, { id: "session-2", created: Date.now() - 1e8, last_seen: Date.now() - 4e6, client: "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) Safari/605", address: "10.0.3.17", current: false }]],
    ["DELETE", "sessions/:id", () => undefined],
    ["POST", "password", (_, b) => { if (b.old_password === "wrong") throw fail(403, "wrong_password", "The present password is not right. Type it again, or ask for a one-time link."); }],
    ["GET", "health", () => ({ status: "ok", version: "0.1.0", now: Date.now(), hosts_online: 3, storage_online: true })],
    ["GET", "desktops", (_, __, q) => s.desktops.filter((d) => (q.get("course") ? d.course === q.get("course") : q.get("all") ? true : d.user === signedIn.id)).map(seen)],
    ["POST", "desktops", (_, b) => desktopFor(find(s.courses, b.course, "course"), find(s.users, b.user, "user"))],
    ["GET", "desktops/:id", (p) => seen(find(s.desktops, p.id, "desktop"))],
    ["DELETE", "desktops/:id", (p) => { s.desktops.splice(s.desktops.indexOf(find(s.desktops, p.id, "desktop")), 1); change("desktop", p.id); }],
    ["GET", "desktops/:id/history", () => ({ placements: [{ at: Date.now() - 60_000, host: "host-1", reason: "fewest desktops (8) of the 2 hosts with enough free memory", snapshot: { hosts: [{ id: "host-1", desktops: 8, free_mib: 58_000 }, { id: "host-2", desktops: 9, free_mib: 57_000 }, { id: "host-3", excluded: "draining" }] } }] })],
    ["POST", "desktops/:id/console-ticket", (p, _, q) => {
      const d = find(s.desktops, p.id, "desktop");
      if (d.phase !== "running") throw fail(409, "not_running", "This desktop is not running. Start it first.");
      return ticket(p.id, q.get("view_only") === "true");
    }],
    ["GET", "desktops/:id/viewers", () => ({ vnc: true, spice: false, spice_reason: "SPICE clients are not switched on for this desktop's course: its teacher can do that, and then it has to be started again" })],
    ["GET", "desktops/:id/clipboard", (p) => ({ text: clip.get(p.id) ?? "print('hello')" })],
    ["PUT", "desktops/:id/clipboard", (p, b) => void clip.set(p.id, b.text)],
    ["POST", "desktops/:id/:order", (p) => {
      const d = find(s.desktops, p.id, "desktop");
      return operate(`desktop.${p.order}`, `desktop/${d.id}`, `${d.user_name} · ${d.course_name}`, [d], orders[p.order]);
    }],
    ["GET", "courses", () => s.courses.filter((c) => signedIn.role !== "student" || s.members.some((m) => m.course === c.id && m.user === signedIn.id)).map(courseView)],
    ["POST", "courses", (_, b) => {
      const image = find(s.images, b.image, "image");
      const r = image.releases[0];
      const c = { id: newId("course"), name: b.name, image: image.id, image_name: image.name, release: r.id, release_version: r.version, follow_newest: true, size: r.size, persistence: b.persistence, outside: b.outside, spice: b.spice ?? false, cold_reason: null, created: Date.now() };
      s.courses.push(c);
      s.members.push({ course: c.id, user: signedIn.id, role: "teacher" });
      return courseView(c);
    }],
    ["PATCH", "courses/:id", (p, b) => {
      const c = find(s.courses, p.id, "course");
      if (b.release) Object.assign(c, { release: b.release, release_version: s.images.flatMap((i) => i.releases).find((r) => r.id === b.release).version, follow_newest: false });
      Object.assign(c, Object.fromEntries(Object.entries(b).filter(([k]) => k !== "release")));
      return courseView(c);
    }],
    ["DELETE", "courses/:id", (p) => { const c = find(s.courses, p.id, "course"); const n = s.desktops.filter((d) => d.course === p.id && d.phase === "running").length; if (n > 0) throw fail(409, "in_use", `${n} desktops of the course ${c.name} still run: stop the class first`); s.courses.splice(s.courses.indexOf(find(s.courses, p.id, "course")), 1); s.desktops = s.desktops.filter((d) => d.course !== p.id); }],
    ["GET", "courses/:id/roster", (p) => s.members.filter((m) => m.course === p.id).map((m) => { const u = find(s.users, m.user, "user"); return { user: u.id, login: u.login, name: u.name, role: m.role }; })],
    ["POST", "courses/:id/roster/preview", (p, b) => rosterChange(p.id, b, false)],
    ["PUT", "courses/:id/roster", (p, b) => rosterChange(p.id, b, true)],
    ["PUT", "courses/:id/members/:user", (p, b) => { const m = s.members.find((x) => x.course === p.id && x.user === p.user); if (m) m.role = b.role; else s.members.push({ course: p.id, user: p.user, role: b.role }); }],
    ["DELETE", "courses/:id/members/:user", (p) => void (s.members = s.members.filter((m) => !(m.course === p.id && m.user === p.user)))],
    ["GET", "desktops/:id/restore-points", () => []],
    ["GET", "courses/:id/restore-points", () => ({ batches: [{ batch: "b-2", origin: "asked", note: "Before exercise 3", taken: Date.now() - 300_000, ready: 20, disk_only: 0, taking: 0, failed: 0, message: "", bytes: 340_000_000 }, { batch: "b-1", origin: "scheduled", note: "", taken: Date.now() - 900_000, ready: 19, disk_only: 2, taking: 0, failed: 1, message: "nothing is heard of its host, so it may still run there: see to the host first", bytes: 310_000_000 }], undo: 0, restoring: 0 })],
    ["GET", "network", () => ({ gateway: null, heard: null, problem: null, repaired: null, repaired_at: null, current: false, doors: 0, hosts: [] })],
    ["GET", "courses/:id/network", (p) => network(find(s.courses, p.id, "course"))],
    ["PATCH", "courses/:id/network", (p, b) => { const c = find(s.courses, p.id, "course"); c.network = { ...network(c), ...b }; c.outside = c.network.internet === "on"; return c.network; }],
    ["PUT", "courses/:id/exam", (p, b) => { const c = find(s.courses, p.id, "course"); c.network = { ...network(c), exam_until: b.until }; return c.network; }],
    ["DELETE", "courses/:id/exam", (p) => { const c = find(s.courses, p.id, "course"); c.network = { ...network(c), exam_until: null }; }],
    ["GET", "courses/:id/point-schedule", () => ({ every_min: 10, keep_last: 6, keep_hourly: 4, own_restore: false })],
    ["PUT", "courses/:id/point-schedule", (_, b) => b],
    ["POST", "courses/:id/restore-points", (p) => operate("course.take-point", `course/${p.id}`, find(s.courses, p.id, "course").name, s.desktops.filter((d) => d.course === p.id && d.phase === "running"), () => {})],
    ["POST", "courses/:id/restore", (p) => operate("course.restore", `course/${p.id}`, find(s.courses, p.id, "course").name, s.desktops.filter((d) => d.course === p.id), orders.reset)],
    ["POST", "courses/:id/hand-out", (p) => operate("course.hand-out", `course/${p.id}`, find(s.courses, p.id, "course").name, s.desktops.filter((d) => d.course === p.id), orders.reset)],
    ["POST", "courses/:id/:order", (p, b) => {
      const c = find(s.courses, p.id, "course");
      // Like the real one: a desktop comes into being with its first start.
      if (p.order === "start") for (const m of s.members) if (m.course === p.id && m.role === "student") desktopFor(c, find(s.users, m.user, "user"));
      const all = s.desktops.filter((d) => d.course === p.id && (!b.users || b.users.includes(d.user)));
      return operate(`course.${p.order}`, `course/${p.id}`, find(s.courses, p.id, "course").name, all, orders[p.order]);
    }],
    ["GET", "images", () => s.images],
    ["POST", "images", (_, b) => { const image = { id: newId("image"), name: b.name, description: b.description, releases: [], draft: null, created: Date.now() }; s.images.push(image); return image; }],
    ["PATCH", "images/:id", (p, b) => Object.assign(find(s.images, p.id, "image"), b)],
    ["DELETE", "images/:id", () => raise(fail(409, "in_use", "The image can't be deleted: the courses Introduction to Python and 文書處理 use it. Give them another image or delete them first."))],
    ["POST", "images/:id/draft", (p, b) => {
      const image = find(s.images, p.id, "image");
      image.draft = { id: newId("draft"), image: image.id, state: b.source.from === "upload" ? "empty" : "ready", detail: "", percent: null, phase: "stopped", host: null, from_release: b.source.release ?? null, size: b.size, iso: false, owner: signedIn.login, created: Date.now() };
      return { draft: image.draft, operation: null };
    }],
    ["DELETE", "drafts/:id", (p) => { const i = s.images.find((x) => x.draft?.id === p.id); i.draft = null; }],
    ["POST", "drafts/:id/console-ticket", (p) => ticket(p.id)],
    ["POST", "drafts/:id/start", (p) => { const d = draftOf(p.id); d.phase = "starting"; setTimeout(() => { d.phase = "running"; d.host = "host-1"; change("draft", d.id); }, 900); return { draft: d, operation: null }; }],
    ["POST", "drafts/:id/stop", (p) => { const d = draftOf(p.id); d.phase = "stopped"; return { draft: d, operation: null }; }],
    ["POST", "drafts/:id/seal", (p, b) => {
      const d = draftOf(p.id);
      const image = find(s.images, d.image, "image");
      Object.assign(d, { state: "sealing", detail: "Booting once; waiting until the guest says it is ready" });
      setTimeout(() => { image.releases.unshift({ id: newId("release"), image: image.id, version: image.releases.length + 1, state: "offered", size: d.size, cold_reason: null, virtual_bytes: 8e9, bytes_on_disk: 2e9, used_by: [], note: b.note, sealed_by: signedIn.login, sealed_at: Date.now() }); image.draft = null; change("release"); }, 4000);
      return { draft: d, operation: null };
    }],
    ["PUT", "drafts/:id/upload", (p) => { const d = draftOf(p.id); Object.assign(d, { state: "importing", percent: 40, detail: "Converting" }); setTimeout(() => { Object.assign(d, { state: "ready", percent: null, detail: "" }); change("draft", d.id); }, 3000); return { draft: d, operation: null }; }],
    ["POST", "releases/:id/:order", (p) => { const r = find(s.images.flatMap((i) => i.releases), p.id, "release"); r.state = p.order === "retire" ? "retired" : "offered"; return r; }],
    ["DELETE", "releases/:id", (p) => { const r = find(s.images.flatMap((i) => i.releases), p.id, "release"); throw fail(409, "in_use", `v${r.version} can't be deleted: it is used by ${r.used_by.join(", ") || "nobody"}. Move them to another release first.`); }],
    ["GET", "hosts", () => s.hosts],
    ["GET", "hosts/:id/samples", (p, b, q) => ({ span_minutes: 1, samples: Array.from({ length: Math.min(360, 60 * Number(q.get("hours") ?? 6)) }, (_, i, n = 360) => ({ at: Math.floor(Date.now() / 60_000 - (n - i)) * 60_000, cpu_percent: 30 + 20 * Math.sin(i / 20), memory_kib: 400_000 + 900 * i, read_rate: i % 40 === 0 ? 9e6 : 4e4, written_rate: 2e5 + 1e5 * Math.cos(i / 9), received_rate: 3e4, sent_rate: i < 100 ? null : 5e4, desktops: 9 })) })],
    ["GET", "hosts/:id/power", (p) => ({ setup: { method: { by: "wake_on_lan", mac: "52:54:00:12:34:56", address: null }, watts: 130, watts_off: 3, group: null, reserve: false, maintenance: false }, has_password: false, commands: ["up"], power: find(s.hosts, p.id, "host").power })],
    ["PUT", "hosts/:id/power", (p, b) => ({ setup: b.setup, has_password: !!b.password, commands: ["up"], power: find(s.hosts, p.id, "host").power })],
    ["POST", "hosts/:id/power/:what", (p) => (Object.assign(find(s.hosts, p.id, "host").power, { state: p.what === "on" ? "waking" : "going_off" }), {})],
    ["GET", "energy", () => [{ day: Date.now() - 86_400_000, drawn_kwh: 3.1, always_on_kwh: 9.4 }]],
    ["GET", "allocation", () => s.allocation],
    ["PUT", "allocation", (_, b) => Object.assign(s.allocation, { settings: b })],
    ["GET", "plans", () => ({ items: s.plans, next: null })],
    ["POST", "plans", () => s.plans[0]],
    ["POST", "plans/:id/:order", (p) => find(s.plans, p.id, "plan")],
    ["PATCH", "hosts/:id", (p, b) => Object.assign(find(s.hosts, p.id, "host"), b)],
    ["POST", "hosts/:id/drain", (p) => (Object.assign(find(s.hosts, p.id, "host"), { state: "draining" }), { operation: "op-drain" })],
    ["POST", "hosts/:id/resume", (p) => void Object.assign(find(s.hosts, p.id, "host"), { state: "active" })],
    ["GET", "moves", () => ({ items: [{ desktop: "d-1", name: "Ann, Programming", operation: "op-move", from: "host-1", to: "host-2", state: "done", way: "delta", why: "56 of its 768 MiB are its own", reason: "host-1 is being emptied", message: "", bytes: 8_700_000, pages: 2100, stand_still_ms: 55, total_ms: 130, pss_before_kib: 57_000, pss_after_kib: 49_000, created: Date.now() - 90_000, ended: Date.now() - 89_000 }], next: null })],
    ["POST", "join-tokens", () => ({ token: "LYC1-9f3a7c51d2e84b60", expires: Date.now() + 3_600_000 })],
    ["GET", "storage", () => s.storage],
    ["GET", "operations", () => ({ items: s.operations, next: null })],
    ["POST", "operations/:id/cancel", (p) => { const o = find(s.operations, p.id, "operation"); Object.assign(o, { state: "cancelled", ended: Date.now() }); change("operation", o.id); return o; }],
    ["GET", "users", (_, __, q) => s.users.filter((u) => (!q.get("role") || u.role === q.get("role")) && (!q.get("search") || (u.name + u.login).toLowerCase().includes(q.get("search").toLowerCase())))],
    ["POST", "users", (_, b) => { const u = { id: newId("user"), ...b, password: undefined, disabled: false, has_password: !!b.password, created: Date.now() }; s.users.push(u); return u; }],
    ["PATCH", "users/:id", (p, b) => Object.assign(find(s.users, p.id, "user"), b)],
    ["DELETE", "users/:id", (p) => void s.users.splice(s.users.indexOf(find(s.users, p.id, "user")), 1)],
    ["POST", "users/:id/one-time-link", () => ({ path: `/#/welcome/${newId("secret")}7f3a91c5d20b4e`, expires: Date.now() + 86_400_000 * 7 })],
    ["GET", "audit", (_, __, q) => { const at = Number(q.get("before") || 1e9); const items = s.audit.filter((e) => e.id < at).slice(0, 25); return { items, next: items.at(-1)?.id > 541 ? String(items.at(-1).id) : null }; }],
    ["GET", "settings", () => s.settings],
    ["PATCH", "settings", (_, b) => { Object.assign(s.settings, b); change("settings"); return s.settings; }],
    ...timetableRoutes(s, { change, newId, find }),
  ].map(([method, pattern, run]) => ({ method, parts: pattern.split("/"), run }));

  function ticket(machine, viewOnly = false) {
    const value = newId("ticket");
    tickets.set(value, { machine, viewOnly });
    return { ticket: value, expires: Date.now() + 30_000 };
  }

  async function api(req, res, url) {
    const path = url.pathname.slice("/api/v1/".length).split("/");
    const send = (status, body) => {
      res.writeHead(status, { "Content-Type": "application/json", ...(setCookie ? { "Set-Cookie": setCookie } : {}) });
      res.end(body === undefined ? "" : JSON.stringify(body));
    };
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    try {
      const sid = /lyceum_session=([^;]+)/.exec(req.headers.cookie ?? "")?.[1];
      signedIn = sessions.get(sid) ?? null;
      setCookie = null;
      const open = ["session", "health"].includes(path[0]) && req.method !== "DELETE";
      if (!signedIn && (!open || req.method === "GET") && path[0] !== "health") throw fail(401, "not_signed_in", "Nobody is signed in. Sign in and try again.");
      if (req.method !== "GET" && !open && req.headers["x-lyceum-csrf"] !== "mock-csrf") throw fail(403, "csrf", "The CSRF token is missing.");
      if (path[0] === "events") {
        res.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
        res.write(": hello\n\n");
        listeners.add(res);
        return req.socket.on("close", () => listeners.delete(res));
      }
      for (const r of routes) {
        if (r.method !== req.method || r.parts.length !== path.length) continue;
        const p = {};
        if (!r.parts.every((part, i) => (part.startsWith(":") ? (p[part.slice(1)] = decodeURIComponent(path[i])) : part === path[i]))) continue;
        const body = req.headers["content-type"] === "application/json" ? JSON.parse(Buffer.concat(chunks).toString()) : {};
        const answer = r.run(p, body, url.searchParams, sid);
        return send(answer === undefined ? 204 : 200, answer);
      }
      throw fail(404, "not_found", `There is nothing at ${req.method} ${url.pathname}.`);
    } catch (e) {
      send(e.status ?? 500, { code: e.code ?? "internal", message: e.message });
    }
  }

  const server = createServer((req, res) => {
    const url = new URL(req.url, "http://mock");
    if (url.pathname.startsWith("/api/v1/")) return void api(req, res, url);
    const path = normalize(url.pathname === "/" ? "/index.html" : url.pathname);
    const file = join(dist, path);
    if (!file.startsWith(dist) || !existsSync(file) || !statSync(file).isFile()) return void res.writeHead(404).end();
    res.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Content-Security-Policy": CSP });
    createReadStream(file).pipe(res);
  });
  const sockets = new WebSocketServer({ noServer: true });
  server.on("upgrade", (req, socket, head) => {
    const ticket = req.url.split("/").pop();
    const grant = tickets.get(ticket);
    if (!tickets.delete(ticket)) return socket.destroy();
    sockets.handleUpgrade(req, socket, head, (ws) => {
      consoles.add(ws);
      ws.on("close", () => consoles.delete(ws));
      // As the gateway does beside the picture.
      if (ws.protocol === "lyceum") ws.send(JSON.stringify({ link: "live" }));
      if (!screens.has(grant.machine)) screens.set(grant.machine, { keys: 0, seats: new Set() });
      serveRfb(ws, screens.get(grant.machine), grant);
    });
  });
  return new Promise((resolve) =>
    server.listen(port, "127.0.0.1", () =>
      resolve({
        url: `http://127.0.0.1:${server.address().port}`,
        state: s,
        change,
        dropConsoles: () => consoles.forEach((ws) => ws.close()),
        close: () => {
          server.closeAllConnections();
          server.close();
        },
      }),
    ),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock(Number(process.argv[2] ?? 7099));
  console.log(`mock classroom (made-up data): ${mock.url}`);
}
