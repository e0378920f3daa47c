// What the page asks for, one function per request that changes something.
import { del, patch, post, put, query, upload, request } from "./client";
import type {
  Accepted,
  AgentKind,
  Allocation,
  AllocationNow,
  CalendarFile,
  ClipboardText,
  ConsoleTicket,
  NativeViewer,
  SpiceViewer,
  Course,
  CourseCreate,
  CourseNetwork,
  CourseNetworkPatch,
  CourseOrder,
  CoursePatch,
  CourseRole,
  CourseTimetable,
  Desktop,
  DraftAccepted,
  DraftCreate,
  FileResult,
  Image,
  JoinToken,
  Lesson,
  LessonExceptionPut,
  LessonPut,
  Me,
  Member,
  OneTimeLink,
  Operation,
  PlanMode,
  PlanRecord,
  PointSchedule,
  PowerSetup,
  PowerShown,
  Release,
  RosterChange,
  RosterCsv,
  SchoolDays,
  SchoolDaysPut,
  SealOrder,
  Settings,
  SettingsPatch,
  TimetableRules,
  User,
  UserCreate,
  UserPatch,
} from "./types";

export type DesktopOrder = "start" | "stop" | "suspend" | "reset";

export const session = {
  signIn: (login: string, password: string) =>
    request<Me>("POST", "session", { login, password }, { quiet401: true }),
  oneTime: (secret: string, new_password: string | null) =>
    request<Me>("POST", "session/one-time", { secret, new_password }, { quiet401: true }),
  signOut: () => del("session"),
  revoke: (id: string) => del(`sessions/${id}`),
  setPassword: (old_password: string | null, new_password: string) =>
    post<void>("password", { old_password, new_password }),
};

export const desktops = {
  order: (id: string, order: DesktopOrder, cold = false) =>
    post<Accepted>(`desktops/${id}/${order}`, order === "start" ? { cold } : undefined),
  ensure: (course: string, user: string) => post<Desktop>("desktops", { course, user }),
  move: (id: string) => post<Accepted>(`desktops/${id}/move`, {}),
  pin: (id: string) => put<void>(`desktops/${id}/pin`),
  unpin: (id: string) => del(`desktops/${id}/pin`),
  remove: (id: string) => del<Accepted>(`desktops/${id}`),
  ticket: (id: string, viewOnly: boolean) => post<ConsoleTicket>(`desktops/${id}/console-ticket${query({ view_only: viewOnly || null })}`),
  nativeViewer: (id: string, viewOnly: boolean) => post<NativeViewer>(`desktops/${id}/native-viewer${query({ view_only: viewOnly || null })}`),
  spiceViewer: (id: string) => post<SpiceViewer>(`desktops/${id}/spice-viewer`),
  clipboard: (id: string) => request<ClipboardText>("GET", `desktops/${id}/clipboard`),
  setClipboard: (id: string, text: string) => put<void>(`desktops/${id}/clipboard`, { text }),
};

export const courses = {
  create: (body: CourseCreate) => post<Course>("courses", body),
  change: (id: string, body: CoursePatch) => patch<Course>(`courses/${id}`, body),
  remove: (id: string) => del<Accepted | undefined>(`courses/${id}`),
  order: (id: string, order: DesktopOrder, body: CourseOrder = {}) =>
    post<Accepted>(`courses/${id}/${order}`, body),
  handOut: (id: string, desktop: string, users: string[] | null) =>
    post<Accepted>(`courses/${id}/hand-out`, { desktop, users }),
  previewRoster: (id: string, body: RosterCsv) =>
    post<RosterChange>(`courses/${id}/roster/preview`, body),
  applyRoster: (id: string, body: RosterCsv) => put<RosterChange>(`courses/${id}/roster`, body),
  putMember: (id: string, user: string, role: CourseRole) =>
    put<Member>(`courses/${id}/members/${user}`, { role }),
  removeMember: (id: string, user: string) => del(`courses/${id}/members/${user}`),
  setNetwork: (id: string, body: CourseNetworkPatch) => patch<CourseNetwork>(`courses/${id}/network`, body),
  beginExam: (id: string, until: number) => put<CourseNetwork>(`courses/${id}/exam`, { until }),
  endExam: (id: string) => del(`courses/${id}/exam`),
};

export const restorePoints = {
  take: (desktop: string) => post<Accepted>(`desktops/${desktop}/restore-points`, {}),
  restore: (desktop: string, point: string) => post<Accepted>(`desktops/${desktop}/restore`, { point }),
  undo: (desktop: string) => post<Accepted>(`desktops/${desktop}/undo-restore`),
  remove: (point: string) => del(`restore-points/${point}`),
};

/** The same of a class. */
export const classPoints = {
  take: (course: string, note: string) => post<Accepted>(`courses/${course}/restore-points`, { note }),
  restore: (course: string, batch: string) => post<Accepted>(`courses/${course}/restore`, { batch }),
  undo: (course: string) => post<Accepted>(`courses/${course}/undo-restore`),
  remove: (course: string, batch: string) => del(`courses/${course}/restore-points/${batch}`),
  setSchedule: (course: string, body: PointSchedule) => put<PointSchedule>(`courses/${course}/point-schedule`, body),
};

export const timetable = {
  add: (body: LessonPut) => post<Lesson>("timetable/lessons", body),
  change: (id: string, body: LessonPut) => put<Lesson>(`timetable/lessons/${id}`, body),
  remove: (id: string) => del(`timetable/lessons/${id}`),
  except: (id: string, date: string, body: LessonExceptionPut) => put<Lesson>(`timetable/lessons/${id}/exceptions/${date}`, body),
  restore: (id: string, date: string) => del<Lesson>(`timetable/lessons/${id}/exceptions/${date}`),
  putDays: (id: string | null, body: SchoolDaysPut) => (id ? put<SchoolDays>(`timetable/days/${id}`, body) : post<SchoolDays>("timetable/days", body)),
  removeDays: (id: string) => del(`timetable/days/${id}`),
  setRules: (body: Partial<TimetableRules>) => patch<TimetableRules>("timetable/rules", body),
  putCourse: (course: string, body: CourseTimetable) => put<CourseTimetable>(`courses/${course}/timetable`, body),
  previewFile: (body: CalendarFile) => post<FileResult>("timetable/import/preview", body),
  importFile: (body: CalendarFile) => post<FileResult>("timetable/import", body),
};

export const images = {
  create: (name: string, description: string) => post<Image>("images", { name, description }),
  change: (id: string, body: { name?: string; description?: string }) =>
    patch<Image>(`images/${id}`, body),
  remove: (id: string) => del(`images/${id}`),
  openDraft: (id: string, body: DraftCreate) =>
    post<DraftAccepted>(`images/${id}/draft`, body),
  retire: (release: string) => post<Release>(`releases/${release}/retire`),
  offer: (release: string) => post<Release>(`releases/${release}/offer`),
  removeRelease: (release: string) => del(`releases/${release}`),
};

export const drafts = {
  start: (id: string) => post<DraftAccepted>(`drafts/${id}/start`),
  stop: (id: string) => post<DraftAccepted>(`drafts/${id}/stop`),
  seal: (id: string, body: SealOrder) => post<DraftAccepted>(`drafts/${id}/seal`, body),
  discard: (id: string) => del<Accepted>(`drafts/${id}`),
  ticket: (id: string) => post<ConsoleTicket>(`drafts/${id}/console-ticket`),
  upload: (
    id: string,
    file: File,
    isoDiskGib: number | null,
    onProgress: (sent: number, total: number) => void,
    signal: AbortSignal,
  ) => {
    const params = new URLSearchParams({ name: file.name });
    if (isoDiskGib !== null) params.set("iso_disk_gib", String(isoDiskGib));
    return upload<DraftAccepted>(`drafts/${id}/upload?${params}`, file, onProgress, signal);
  },
};

export const hosts = {
  drain: (id: string) => post<Accepted>(`hosts/${id}/drain`),
  resume: (id: string) => post<void>(`hosts/${id}/resume`),
  joinToken: (kind: AgentKind, name: string) => post<JoinToken>("join-tokens", { kind, name }),
  powerOn: (id: string) => post<PowerShown>(`hosts/${id}/power/on`),
  powerOff: (id: string) => post<PowerShown>(`hosts/${id}/power/off`),
  setPower: (id: string, setup: PowerSetup, password: string | null) => put<PowerShown>(`hosts/${id}/power`, { setup, password }),
};

export const allocation = {
  change: (body: Allocation) => put<AllocationNow>("allocation", body),
  plan: (mode: PlanMode | null, act: boolean) => post<PlanRecord>("plans", { mode, act }),
  run: (id: string) => post<PlanRecord>(`plans/${id}/run`),
  stop: (id: string) => post<PlanRecord>(`plans/${id}/stop`),
};

export const operations = {
  cancel: (id: string) => post<Operation>(`operations/${id}/cancel`),
};

export const users = {
  create: (body: UserCreate) => post<User>("users", body),
  change: (id: string, body: UserPatch) => patch<User>(`users/${id}`, body),
  remove: (id: string) => del(`users/${id}`),
  oneTimeLink: (id: string) => post<OneTimeLink>(`users/${id}/one-time-link`),
};

export const settings = {
  change: (body: SettingsPatch) => patch<Settings>("settings", body),
};
