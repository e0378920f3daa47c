import { defineConfig } from "vitest/config";

// The steps build on each other and drive one real classroom: one at a time, stop at the first failure.
export default defineConfig({
  test: {
    root: new URL(".", import.meta.url).pathname,
    include: ["**/*.e2e.ts"],
    environment: "node",
    fileParallelism: false,
    sequence: { concurrent: false },
    bail: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
