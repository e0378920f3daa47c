// What the page reads, as hooks. The first word of each key is the kind that
// server-sent events name, so that a change finds what it makes stale.
import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { get, query } from "./client";
import { isMoving } from "../lib/phase";
import type {
  AllocationNow,
  AuditEntry,
  Course,
  CourseNetwork,
  Network,
  CoursePoints,
  Desktop,
  DesktopHistory,
  EnergyDay,
  Health,
  Host,
  Image,
  Me,
  Member,
  Move,
  Operation,
  Page,
  PlanRecord,
  PointSchedule,
  PowerShown,
  RestorePoint,
  Samples,
  Session,
  Settings,
  Storage,
  Timetable,
  TimetableNow,
  User,
  ViewerWays,
  Week,
} from "./types";

export const useMe = () =>
  useQuery({
    queryKey: ["me"],
    queryFn: ({ signal }) => get<Me>("session", signal),
    staleTime: 60_000,
    retry: (count, error) => count < 3 && !("status" in error && error.status === 401),
  });

export const useHealth = () =>
  useQuery({ queryKey: ["health"], queryFn: ({ signal }) => get<Health>("health", signal) });

export const useSessions = () =>
  useQuery({
    queryKey: ["sessions"],
    queryFn: ({ signal }) => get<Session[]>("sessions", signal),
  });

/** Events say when something changes; while something moves, asking now and then makes sure. */
const whileMoving = (desktops: Desktop[] | undefined) =>
  // Memory and CPU are measured all the time and are no events.
  desktops?.some((d) => isMoving(d.phase)) ? 2000 : 10_000;

export const useMyDesktops = () =>
  useQuery({
    queryKey: ["desktops", "mine"],
    queryFn: ({ signal }) => get<Desktop[]>("desktops", signal),
    refetchInterval: (q) => whileMoving(q.state.data),
  });

export const useCourseDesktops = (course: string) =>
  useQuery({
    queryKey: ["desktops", "course", course],
    queryFn: ({ signal }) => get<Desktop[]>(`desktops${query({ course })}`, signal),
    refetchInterval: (q) => whileMoving(q.state.data),
  });

export const useAllDesktops = (enabled: boolean) =>
  useQuery({
    queryKey: ["desktops", "all"],
    queryFn: ({ signal }) => get<Desktop[]>(`desktops${query({ all: true })}`, signal),
    refetchInterval: 10_000,
    enabled,
  });

export const useDesktop = (id: string) =>
  useQuery({
    queryKey: ["desktops", "one", id],
    queryFn: ({ signal }) => get<Desktop>(`desktops/${id}`, signal),
    refetchInterval: (q) => (q.state.data && isMoving(q.state.data.phase) ? 700 : 10_000),
  });

/** Asks the machine itself, so not at every event. */
export const useViewerWays = (id: string) =>
  useQuery({
    queryKey: ["viewers", id],
    queryFn: ({ signal }) => get<ViewerWays>(`desktops/${id}/viewers`, signal),
    staleTime: 0,
    refetchInterval: 10_000,
  });

export const useHistory = (id: string) =>
  useQuery({
    queryKey: ["desktops", "history", id],
    queryFn: ({ signal }) => get<DesktopHistory>(`desktops/${id}/history`, signal),
  });

export const useCourses = () =>
  useQuery({ queryKey: ["courses"], queryFn: ({ signal }) => get<Course[]>("courses", signal) });

export const useRoster = (course: string) =>
  useQuery({
    queryKey: ["courses", "roster", course],
    queryFn: ({ signal }) => get<Member[]>(`courses/${course}/roster`, signal),
  });

export const useCourseNetwork = (course: string) =>
  useQuery({
    queryKey: ["courses", "network", course],
    queryFn: ({ signal }) => get<CourseNetwork>(`courses/${course}/network`, signal),
    // An examination ends by itself.
    refetchInterval: 15_000,
  });

export const useNetwork = () =>
  useQuery({
    queryKey: ["network"],
    queryFn: ({ signal }) => get<Network>("network", signal),
    // The gateway says every few seconds how it is doing.
    refetchInterval: 10_000,
  });

const busyDraft = (images: Image[] | undefined) => {
  const drafts = (images ?? []).flatMap((i) => (i.draft ? [i.draft] : []));
  if (drafts.some((d) => d.state === "importing" || d.state === "sealing" || isMoving(d.phase))) return 1500;
  // What the machine of an open draft does by itself is no event of the draft.
  return drafts.some((d) => d.state === "ready") ? 4000 : 30_000;
};

export const useImages = () =>
  useQuery({
    queryKey: ["images"],
    queryFn: ({ signal }) => get<Image[]>("images", signal),
    refetchInterval: (q) => busyDraft(q.state.data),
  });

export const useHosts = () =>
  useQuery({
    queryKey: ["hosts"],
    queryFn: ({ signal }) => get<Host[]>("hosts", signal),
    // Measurements come every five seconds and are no events.
    refetchInterval: 5000,
  });

export const useMoves = () =>
  useQuery({
    queryKey: ["moves"],
    queryFn: ({ signal }) => get<Page<Move>>("moves", signal).then((page) => page.items),
    refetchInterval: (q) => (q.state.data?.some((m) => m.ended === null) ? 1000 : 10_000),
  });

/** `quiet`: where it may be that one may not see them, and then there are none. */
export const useDesktopPoints = (desktop: string, quiet = false) =>
  useQuery({
    queryKey: ["restore-points", "desktop", desktop],
    queryFn: ({ signal }) => get<RestorePoint[]>(`desktops/${desktop}/restore-points`, signal),
    refetchInterval: (q) => (q.state.data?.some((p) => p.state === "taking") ? 1000 : 15_000),
    ...(quiet ? { retry: false, refetchInterval: false as const, staleTime: 60_000 } : {}),
  });

export const useCoursePoints = (course: string) =>
  useQuery({
    queryKey: ["restore-points", "course", course],
    queryFn: ({ signal }) => get<CoursePoints>(`courses/${course}/restore-points`, signal),
    refetchInterval: (q) => (q.state.data && (q.state.data.restoring > 0 || q.state.data.batches.some((b) => b.taking > 0)) ? 1000 : 15_000),
  });

export const usePointSchedule = (course: string) =>
  useQuery({
    queryKey: ["restore-points", "schedule", course],
    queryFn: ({ signal }) => get<PointSchedule>(`courses/${course}/point-schedule`, signal),
  });

export const useTimetable = () =>
  useQuery({ queryKey: ["timetable", "all"], queryFn: ({ signal }) => get<Timetable>("timetable", signal) });

export const useWeek = (what: { first: string | null; course: string | null; room: string | null }) =>
  useQuery({
    queryKey: ["timetable", "week", what],
    queryFn: ({ signal }) => get<Week>(`timetable/week${query(what)}`, signal),
    placeholderData: keepPreviousData,
    // A lesson begins without an event.
    refetchInterval: 20_000,
  });

export const useTimetableNow = () =>
  useQuery({
    queryKey: ["timetable", "now"],
    queryFn: ({ signal }) => get<TimetableNow>("timetable/now", signal),
    refetchInterval: 20_000,
  });

export const useSamples = (host: string, hours: number) =>
  useQuery({
    queryKey: ["samples", host, hours],
    queryFn: ({ signal }) => get<Samples>(`hosts/${host}/samples${query({ hours })}`, signal),
    refetchInterval: 60_000,
  });

export const usePower = (host: string) =>
  useQuery({ queryKey: ["power", host], queryFn: ({ signal }) => get<PowerShown>(`hosts/${host}/power`, signal) });

export const useEnergy = () =>
  useQuery({ queryKey: ["energy"], queryFn: ({ signal }) => get<EnergyDay[]>("energy", signal), refetchInterval: 60_000 });

export const useAllocation = () =>
  useQuery({ queryKey: ["allocation"], queryFn: ({ signal }) => get<AllocationNow>("allocation", signal), refetchInterval: 15_000 });

export const usePlans = () =>
  useQuery({
    queryKey: ["plans"],
    queryFn: ({ signal }) => get<Page<PlanRecord>>("plans", signal).then((page) => page.items),
    refetchInterval: (q) => (q.state.data?.some((p) => p.state === "running") ? 1000 : 15_000),
  });

export const useStorage = () =>
  useQuery({
    queryKey: ["storage"],
    queryFn: ({ signal }) => get<Storage>("storage", signal),
    refetchInterval: 15_000,
  });

export const useOperations = () =>
  useQuery({
    queryKey: ["operations"],
    queryFn: ({ signal }) => get<Page<Operation>>("operations", signal).then((page) => page.items),
    refetchInterval: (q) => (q.state.data?.some((o) => o.state === "running") ? 1000 : 15_000),
  });

export const useUsers = (params: { role?: string; search?: string }) =>
  useQuery({
    queryKey: ["users", params],
    queryFn: ({ signal }) => get<User[]>(`users${query(params)}`, signal),
    placeholderData: keepPreviousData,
  });

export const useSettings = () =>
  useQuery({ queryKey: ["settings"], queryFn: ({ signal }) => get<Settings>("settings", signal) });

export const useAudit = () =>
  useInfiniteQuery({
    queryKey: ["audit"],
    queryFn: ({ pageParam, signal }) =>
      get<Page<AuditEntry>>(`audit${query({ before: pageParam })}`, signal),
    initialPageParam: "",
    getNextPageParam: (last) => last.next ?? undefined,
  });
