// Names and shapes of the REST API, as `npm run types` makes them from openapi.json.

export interface components {
  schemas: {
    ApiError: { code: string; message: string };
    ChangeEvent: { kind: string; id: string };
    Settings: {
      classroom_name: string;
      overcommit: number;
      seats_per_host: number;
      starts_at_once: number;
      fork_timeout_s: number;
      cold_timeout_s: number;
      session_idle_minutes: number;
    };
    SettingsPatch: Partial<components["schemas"]["Settings"]>;
    Role: "student" | "teacher" | "admin";
    SignIn: { login: string; password: string };
    OneTimeSignIn: { secret: string; new_password?: string | null };
    Me: { user: components["schemas"]["User"]; session: string; classroom_name: string; csrf: string };
    PasswordChange: { old_password?: string | null; new_password: string };
    Session: {
      id: string;
      created: number;
      last_seen: number;
      client: string;
      address: string;
      current: boolean;
    };
    User: {
      id: string;
      login: string;
      name: string;
      role: components["schemas"]["Role"];
      disabled: boolean;
      has_password: boolean;
      created: number;
    };
    UserCreate: {
      login: string;
      name: string;
      role: components["schemas"]["Role"];
      password?: string | null;
    };
    UserPatch: {
      name?: string | null;
      role?: components["schemas"]["Role"] | null;
      disabled?: boolean | null;
    };
    OneTimeLink: { path: string; expires: number };
    AuditEntry: {
      id: number;
      at: number;
      actor: string;
      action: string;
      target: string;
      detail: string;
      address: string;
    };
    CourseRole: "student" | "teacher";
    MachineSize: { vcpus: number; memory_mib: number };
    Persistence: "throwaway" | "persistent";
    Course: {
      id: string;
      name: string;
      image: string;
      image_name: string;
      release?: string | null;
      release_version?: number | null;
      follow_newest: boolean;
      size: components["schemas"]["MachineSize"];
      persistence: components["schemas"]["Persistence"];
      outside: boolean;
      my_role?: components["schemas"]["CourseRole"] | null;
      students: number;
      running: number;
      cold_reason?: string | null;
      created: number;
    };
    CourseCreate: {
      name: string;
      image: string;
      release?: string | null;
      size?: components["schemas"]["MachineSize"] | null;
      persistence: components["schemas"]["Persistence"];
      outside?: boolean;
    };
    CoursePatch: {
      name?: string | null;
      release?: string | null;
      follow_newest?: boolean | null;
      size?: components["schemas"]["MachineSize"] | null;
      persistence?: components["schemas"]["Persistence"] | null;
      outside?: boolean | null;
    };
    Member: { user: string; login: string; name: string; role: components["schemas"]["CourseRole"] };
    MemberPut: { role: components["schemas"]["CourseRole"] };
    RosterCsv: { csv: string; remove_missing?: boolean; create_accounts?: boolean };
    RosterRow: { login: string; name: string; role: components["schemas"]["CourseRole"] };
    RosterProblem: { line: number; message: string };
    RosterLink: { login: string; path: string };
    RosterChange: {
      create: components["schemas"]["RosterRow"][];
      add: components["schemas"]["RosterRow"][];
      change: components["schemas"]["RosterRow"][];
      remove: components["schemas"]["RosterRow"][];
      unchanged: number;
      problems: components["schemas"]["RosterProblem"][];
      links: components["schemas"]["RosterLink"][];
    };
    Desired: "running" | "suspended" | "stopped" | "absent";
    Phase:
      | "stopped"
      | "starting"
      | "running"
      | "suspending"
      | "suspended"
      | "stopping"
      | "failed"
      | "unknown";
    Desktop: {
      id: string;
      course: string;
      course_name: string;
      user: string;
      user_name: string;
      desired: components["schemas"]["Desired"];
      phase: components["schemas"]["Phase"];
      detail: string;
      host?: string | null;
      release?: string | null;
      size: components["schemas"]["MachineSize"];
      persistence: components["schemas"]["Persistence"];
      started_by?: string | null;
      cold_reason?: string | null;
      address?: string | null;
      usable_ms?: number | null;
      pss_kib: number;
      cpu_percent: number;
      delta_bytes?: number | null;
      suspend_ms?: number | null;
      notice?: string | null;
      changed: number;
    };
    DesktopCreate: { course: string; user: string };
    Accepted: { operation: string };
    CourseOrder: { users?: string[] | null; cold?: boolean };
    StartOrder: { cold?: boolean };
    HandOut: { desktop: string; users?: string[] | null };
    ConsoleTicket: { ticket: string; expires: number };
    ClipboardText: { text: string };
    Placement: { at: number; host?: string | null; reason: string; snapshot: Record<string, unknown> };
    DesktopHistory: { placements: components["schemas"]["Placement"][] };
    HostState: "active" | "draining";
    Accelerator: "kvm" | "tcg" | "simulated";
    Host: {
      id: string;
      url: string;
      state: components["schemas"]["HostState"];
      online: boolean;
      last_heard?: number | null;
      warnings: string[];
      accelerator?: components["schemas"]["Accelerator"] | null;
      qemu_version?: string | null;
      cpus: number;
      memory_mib: number;
      nominal_mib: number;
      nominal_limit_mib: number;
      desktops_pss_mib: number;
      available_mib: number;
      cpu_percent: number;
      desktops_cpu_percent: number;
      memory_pressure: number;
      desktops: number;
      refuses_because?: string | null;
      recent: components["schemas"]["HostSample"][];
    };
    HostSample: { at: number; cpu_percent: number; desktops_pss_mib: number; desktops: number };
    HostPatch: { state?: components["schemas"]["HostState"] | null };
    AgentKind: "host" | "storage";
    JoinTokenCreate: { kind: components["schemas"]["AgentKind"]; name: string };
    JoinToken: { token: string; expires: number };
    TierUsage: { total_bytes: number; free_bytes: number; used_bytes: number };
    Storage: {
      online: boolean;
      driver: string;
      fast?: components["schemas"]["TierUsage"] | null;
      slow?: components["schemas"]["TierUsage"] | null;
      same_device: boolean;
      warnings: string[];
    };
    Health: {
      status: string;
      version: string;
      now: number;
      hosts_online: number;
      storage_online: boolean;
    };
    Image: {
      id: string;
      name: string;
      description: string;
      releases: components["schemas"]["Release"][];
      draft?: components["schemas"]["Draft"] | null;
      created: number;
    };
    ImageCreate: { name: string; description?: string };
    ImagePatch: { name?: string | null; description?: string | null };
    ReleaseState: "offered" | "retired" | "damaged";
    Release: {
      id: string;
      image: string;
      version: number;
      state: components["schemas"]["ReleaseState"];
      size?: components["schemas"]["MachineSize"] | null;
      cold_reason?: string | null;
      virtual_bytes: number;
      bytes_on_disk: number;
      used_by: string[];
      note: string;
      sealed_by: string;
      sealed_at: number;
    };
    DraftState: "empty" | "importing" | "ready" | "sealing";
    Draft: {
      id: string;
      image: string;
      state: components["schemas"]["DraftState"];
      detail: string;
      percent?: number | null;
      phase: components["schemas"]["Phase"];
      host?: string | null;
      from_release?: string | null;
      size: components["schemas"]["MachineSize"];
      iso: boolean;
      owner: string;
      created: number;
    };
    DraftSource:
      | { from: "release"; release: string }
      | { from: "upload" }
      | { from: "empty"; disk_gib: number };
    DraftCreate: {
      source: components["schemas"]["DraftSource"];
      size?: components["schemas"]["MachineSize"] | null;
    };
    SealOrder: { note?: string; size?: components["schemas"]["MachineSize"] | null };
    DraftAccepted: { draft: components["schemas"]["Draft"]; operation?: string | null };
    OperationState: "running" | "done" | "failed" | "cancelled";
    Operation: {
      id: string;
      kind: string;
      target: string;
      target_name: string;
      requested_by: string;
      state: components["schemas"]["OperationState"];
      total: number;
      done: number;
      step: string;
      failures: components["schemas"]["OperationFailure"][];
      created: number;
      ended?: number | null;
    };
    OperationFailure: { target: string; name: string; message: string };
  };
}
