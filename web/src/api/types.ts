// Short names for the generated types of the API.
import type { components } from "./schema";

type S = components["schemas"];

export type ApiErrorBody = S["ApiError"];
export type ChangeEvent = S["ChangeEvent"];
export type Settings = S["Settings"];
export type SettingsPatch = S["SettingsPatch"];
export type Move = S["Move"];
// What has a default may be left out of a request and is in every answer.
export type PlanPolicy = Required<S["PlanPolicy"]>;
export type Allocation = Required<Omit<S["Allocation"], "policy">> & { policy: PlanPolicy };
export type AllocationNow = Omit<S["AllocationNow"], "settings"> & { settings: Allocation };
export type HostPower = Required<S["HostPower"]>;
export type PlanMode = S["PlanMode"];
export type PlanRecord = S["PlanRecord"];
export type PlanStep = S["PlanStep"];
export type PowerMethod = S["PowerMethod"];
export type PowerSetup = S["PowerSetup"];
export type PowerShown = Omit<S["PowerShown"], "power"> & { power: HostPower };
export type Sample = S["Sample"];
export type Samples = S["Samples"];
export type EnergyDay = S["EnergyDay"];
export type RestorePoint = S["RestorePoint"];
export type CoursePoints = S["CoursePoints"];
export type PointBatch = S["PointBatch"];
export type PointSchedule = S["PointSchedule"];
export type Role = S["Role"];
export type Me = S["Me"];
export type User = S["User"];
export type UserCreate = S["UserCreate"];
export type UserPatch = S["UserPatch"];
export type Session = S["Session"];
export type OneTimeLink = S["OneTimeLink"];
export type AuditEntry = S["AuditEntry"];
export type CourseRole = S["CourseRole"];
export type MachineSize = S["MachineSize"];
export type Persistence = S["Persistence"];
export type Course = S["Course"];
export type CourseCreate = S["CourseCreate"];
export type CoursePatch = S["CoursePatch"];
export type CourseOrder = S["CourseOrder"];
export type Member = S["Member"];
export type RosterCsv = S["RosterCsv"];
export type RosterChange = S["RosterChange"];
export type RosterRow = S["RosterRow"];
export type RosterLink = S["RosterLink"];
export type Phase = S["Phase"];
export type Desktop = S["Desktop"];
export type DesktopHistory = S["DesktopHistory"];
export type Accepted = S["Accepted"];
export type ConsoleTicket = S["ConsoleTicket"];
export type NativeViewer = S["NativeViewer"];
export type SpiceViewer = S["SpiceViewer"];
export type ClipboardText = S["ClipboardText"];
export type Host = Omit<S["Host"], "power"> & { power: HostPower };
export type HostSample = S["HostSample"];
export type HostState = S["HostState"];
export type AgentKind = S["AgentKind"];
export type JoinToken = S["JoinToken"];
export type TierUsage = S["TierUsage"];
export type Storage = S["Storage"];
export type Health = S["Health"];
export type Image = S["Image"];
export type Release = S["Release"];
export type ReleaseState = S["ReleaseState"];
export type Draft = S["Draft"];
export type DraftCreate = S["DraftCreate"];
export type DraftAccepted = S["DraftAccepted"];
export type SealOrder = S["SealOrder"];
export type Operation = S["Operation"];
export type OperationState = S["OperationState"];

/** A page of rows, newest first; `next` goes into `before` to get the rows that follow. */
export interface Page<T> {
  items: T[];
  next?: string | null;
}
