import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Where `npm run dev` sends API requests: a classroom, or the mock of `npm run mock`.
const api = process.env.LYCEUM_API ?? "http://127.0.0.1:7099";

export default defineConfig({
  plugins: [react()],
  // The page is served from wherever the controller is, so nothing may assume "/".
  base: "./",
  build: {
    outDir: "dist",
    target: "es2022",
    // A data: URI would need a wider Content-Security-Policy than the controller sends.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The licences of everything that is bundled travel with it.
    license: { fileName: "licenses.md" },
  },
  server: {
    proxy: { "/api": { target: api, ws: true, secure: false, changeOrigin: false } },
  },
  test: {
    include: ["tests/unit/**/*.test.ts"],
    environment: "node",
  },
} as Parameters<typeof defineConfig>[0]);
