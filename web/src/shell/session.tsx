// Who is signed in, for everything below.
import { useQueryClient, type QueryClient } from "@tanstack/react-query";
import { createContext, useContext, useEffect, useState, type ReactNode } from "react";
import { setCsrf } from "../api/client";
import { listen } from "../api/events";
import type { Me } from "../api/types";

interface SessionState {
  me: Me;
  /** May run courses and images. */
  staff: boolean;
  admin: boolean;
  /** Whether changes are heard of as they happen. */
  live: boolean;
}

const Context = createContext<SessionState | null>(null);

export function useSession(): SessionState {
  const session = useContext(Context);
  if (!session) throw new Error("useSession outside of SessionProvider");
  return session;
}

export function SessionProvider({ me, children }: { me: Me; children: ReactNode }) {
  const client = useQueryClient();
  const [live, setLive] = useState(true);
  // Before any child's request, hence not in an effect.
  setCsrf(me.csrf);
  useEffect(() => listen(client, setLive), [client, me.session]);
  const { role } = me.user;
  return (
    <Context value={{ me, staff: role !== "student", admin: role === "admin", live }}>{children}</Context>
  );
}

/** Drops all that was read as somebody else; who is signed in is not part of that. */
export function forgetAll(client: QueryClient): void {
  client.removeQueries({ predicate: (query) => query.queryKey[0] !== "me" });
}
