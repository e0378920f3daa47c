// Moves of running desktops between hosts, with what they cost.
import { useState } from "react";
import { useMoves } from "../../api/queries";
import type { Move } from "../../api/types";
import { useWords } from "../../i18n";
import { bytes, clock, kib } from "../../lib/format";
import { Badge, Button } from "../../ui/controls";
import { Loaded, TableWrap } from "../../ui/pieces";

/** Rows that are shown at first. */
const ROWS = 15;
const TONES = { waiting: "busy", preparing: "busy", moving: "busy", done: "good", failed: "bad", cancelled: "idle" } as const;

export function Moves() {
  const { t } = useWords();
  const moves = useMoves();
  const [all, setAll] = useState(false);
  return (
    <div className="panel">
      <h2 id="moves">{t.moves.title}</h2>
      <Loaded query={moves}>
        {(list) =>
          list.length === 0 ? (
            <p className="muted">{t.moves.none}</p>
          ) : (
            <>
              <TableWrap label={t.moves.title}>
                <table className="moves">
                  <thead>
                    <tr>
                      <th>{t.moves.desktop}</th>
                      <th>{t.moves.way}</th>
                      <th className="right">{t.moves.sent}</th>
                      <th className="right">{t.moves.still}</th>
                      <th className="right">{t.moves.total}</th>
                      <th className="right">{t.moves.memory}</th>
                      <th>{t.moves.state}</th>
                    </tr>
                  </thead>
                  <tbody>
                    {(all ? list : list.slice(0, ROWS)).map((m) => (
                      <Row key={m.operation + m.desktop} move={m} />
                    ))}
                  </tbody>
                </table>
              </TableWrap>
              {!all && list.length > ROWS && (
                <Button look="quiet" onClick={() => setAll(true)}>
                  {t.moves.all(list.length)}
                </Button>
              )}
            </>
          )
        }
      </Loaded>
    </div>
  );
}

function Row({ move: m }: { move: Move }) {
  const { t, locale } = useWords();
  const ms = (n: number | null | undefined) => (typeof n === "number" ? t.moves.ms(n) : "");
  return (
    <tr>
      <td>
        <strong>{m.name}</strong>
        <span className="muted small block">
          {m.from} → {m.to} · {clock(m.created, locale)}
        </span>
      </td>
      <td>
        {m.way ? t.moves.ways[m.way] : ""}
        {m.why && <span className="muted small block">{t.say(m.why)}</span>}
      </td>
      <td className="right num" data-label={t.moves.sent}>{typeof m.bytes === "number" ? bytes(m.bytes) : ""}</td>
      <td className="right num" data-label={t.moves.still}>{ms(m.stand_still_ms)}</td>
      <td className="right num" data-label={t.moves.total}>{ms(m.total_ms)}</td>
      <td className="right num" data-label={t.moves.memory}>
        {typeof m.pss_before_kib === "number" ? kib(m.pss_before_kib) : ""}
        {typeof m.pss_after_kib === "number" ? ` → ${kib(m.pss_after_kib)}` : ""}
      </td>
      <td>
        <Badge tone={TONES[m.state]}>{t.moves.states[m.state]}</Badge>
        <span className="muted small block">{t.say(m.message || m.reason)}</span>
      </td>
    </tr>
  );
}
