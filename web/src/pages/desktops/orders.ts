// Orders about one desktop, with the questions that belong to them.
import { desktops, type DesktopOrder } from "../../api/actions";
import type { Desktop } from "../../api/types";
import { useWords } from "../../i18n";
import { useConfirm } from "../../ui/dialog";
import { useAction } from "../../ui/toast";

const STALE = ["desktops", "operations", "courses"];

export function useDesktopOrders(desktop: Desktop, name: string) {
  const { t } = useWords();
  const confirm = useConfirm();
  const order = useAction(
    async (what: DesktopOrder, cold?: boolean) => {
      // A seat without a desktop gets one with its first start.
      const id = desktop.id || (await desktops.ensure(desktop.course, desktop.user)).id;
      return desktops.order(id, what, cold);
    },
    { stale: STALE },
  );
  const move = useAction(() => desktops.move(desktop.id), { stale: STALE, done: t.desktop.moveOrdered });
  const pin = useAction(() => desktops.pin(desktop.id), { stale: STALE, done: t.desktop.pinDone });
  const unpin = useAction(() => desktops.unpin(desktop.id), { stale: STALE, done: t.desktop.unpinDone });
  const remove = useAction(() => desktops.remove(desktop.id), { stale: STALE });
  return {
    busy: order.busy || remove.busy || move.busy,
    move: () => move.run(),
    pin: () => (desktop.pinned ? unpin.run() : pin.run()),
    start: () => order.run("start"),
    startCold: () => order.run("start", true),
    suspend: () => order.run("suspend"),
    reset: async () => {
      const yes = await confirm({ title: t.desktop.resetTitle(name), body: t.desktop.resetLoses, confirm: t.desktop.resetConfirm, danger: true });
      if (yes) order.run("reset");
      return yes;
    },
    stop: async () => {
      const body =
        desktop.phase === "suspended"
          ? t.desktop.stopSavedLoses
          : desktop.persistence === "throwaway"
            ? t.desktop.stopLosesAll
            : t.desktop.stopLosesOpen;
      const harmless = desktop.phase === "failed" || desktop.phase === "starting";
      const yes = harmless || (await confirm({ title: t.desktop.stopTitle(name), body, confirm: desktop.phase === "suspended" ? t.desktop.discardSaved : t.desktop.stopConfirm, danger: true }));
      if (yes) order.run("stop");
    },
    remove: async () => {
      if (await confirm({ title: t.desktop.removeTitle(desktop.user_name), body: t.desktop.removeLoses, confirm: t.desktop.remove, danger: true })) remove.run();
    },
  };
}
