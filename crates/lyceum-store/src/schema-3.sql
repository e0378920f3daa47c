-- handed_out: the newest generation that any host was given for it; a move hands one out and may fail.
-- moving_to: the host that waits for it under that generation, while it still runs on host_id.
ALTER TABLE desktops ADD COLUMN handed_out BIGINT NOT NULL DEFAULT 0;
ALTER TABLE desktops ADD COLUMN moving_to TEXT;

-- state: waiting, preparing, moving, done, failed, cancelled. cancel: somebody called it off.
-- reason: why it is moved; way: delta or live, NULL until it is chosen; why: why that way.
CREATE TABLE moves (
  id TEXT PRIMARY KEY,
  desktop_id TEXT NOT NULL,
  operation_id TEXT NOT NULL,
  from_host TEXT NOT NULL,
  to_host TEXT NOT NULL,
  state TEXT NOT NULL,
  cancel SMALLINT NOT NULL,
  generation BIGINT NOT NULL,
  wanted_way TEXT,
  way TEXT,
  why TEXT NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  bytes BIGINT,
  pages BIGINT,
  stand_still_ms BIGINT,
  total_ms BIGINT,
  pss_before_kib BIGINT,
  pss_after_kib BIGINT,
  created BIGINT NOT NULL,
  began BIGINT,
  ended BIGINT
);
CREATE INDEX moves_desktop ON moves(desktop_id, created);
CREATE INDEX moves_state ON moves(state);
