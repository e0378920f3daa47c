// Sums over hosts and desktops for the overview. Pure.
import type { Desktop, Host } from "../api/types";

export interface ClusterMemory {
  /** Sum of Pss, MiB. */
  realMib: number;
  /** What the running desktops see, MiB. */
  nominalMib: number;
  /** Nominal as a multiple of real; 1 when nothing runs. */
  factor: number;
  desktops: number;
}

export function clusterMemory(hosts: readonly Host[]): ClusterMemory {
  let realMib = 0;
  let nominalMib = 0;
  let desktops = 0;
  for (const host of hosts) {
    realMib += host.desktops_pss_mib;
    nominalMib += host.nominal_mib;
    desktops += host.desktops;
  }
  return { realMib, nominalMib, desktops, factor: realMib > 0 ? nominalMib / realMib : 1 };
}

/** The middle of some numbers; `null` of none. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const mid = sorted.length >> 1;
  const upper = sorted[mid] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[mid - 1] ?? 0) + upper) / 2;
}

export interface ClassSummary {
  running: number;
  medianMs: number | null;
  slowestMs: number | null;
  realKib: number;
  nominalMib: number;
}

export function classSummary(desktops: readonly Desktop[]): ClassSummary {
  const running = desktops.filter((d) => d.phase === "running");
  const times = running.flatMap((d) => (typeof d.usable_ms === "number" ? [d.usable_ms] : []));
  return {
    running: running.length,
    medianMs: median(times),
    slowestMs: times.length > 0 ? Math.max(...times) : null,
    realKib: running.reduce((sum, d) => sum + d.pss_kib, 0),
    nominalMib: running.reduce((sum, d) => sum + d.size.memory_mib, 0),
  };
}
