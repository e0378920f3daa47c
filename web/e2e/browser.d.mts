import type { BrowserContext, LaunchOptions, Page } from "playwright-core";

export function openBrowser(options?: LaunchOptions & Record<string, unknown>): Promise<{
  context: BrowserContext;
  page: Page;
  close: () => Promise<void>;
}>;
