export function startMock(port?: number): Promise<{
  url: string;
  state: Record<string, unknown[]>;
  change: (kind: string, id?: string) => void;
  dropConsoles: () => void;
  close: () => void;
}>;
