import { defineConfig } from "vitest/config";

// The steps build on each other and drive one real classroom: one at a time, stop at the first failure.
export default defineConfig({
  test: {
    root: new URL(".", import.meta.url).pathname,
    include: [process.env.MEASURE ? `${process.env.MEASURE}.measure.ts` : "**/*.e2e.ts"],
    environment: "node",
    // Vite has a BASE_URL of its own and puts it over the environment's.
    env: { CLASSROOM_URL: process.env.BASE_URL ?? "" },
    fileParallelism: false,
    sequence: { concurrent: false },
    bail: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
