-- Restore points.
-- state: taking, ready, failed, damaged, dropping. origin: asked, scheduled, undo (as it was before a restore).
-- holds: memory (delta_id, with its own copy of the disk), disk (kept by the disk driver as a point of
-- overlay_id), kept (overlay_id and perhaps delta_id are the desktop's own, set aside), nothing (it was as new).
-- batch: what was taken together. was: what the desktop should be when it is brought back ('running', ...).
-- order_id: the operation that takes it. Rows go when the files that belong to them are gone (state dropping).
CREATE TABLE restore_points (
  id TEXT PRIMARY KEY,
  desktop_id TEXT NOT NULL,
  course_id TEXT NOT NULL,
  batch TEXT NOT NULL,
  order_id TEXT,
  origin TEXT NOT NULL,
  state TEXT NOT NULL,
  holds TEXT NOT NULL,
  was TEXT NOT NULL,
  delta_id TEXT,
  overlay_id TEXT,
  release_id TEXT,
  vcpus BIGINT NOT NULL,
  memory_mib BIGINT NOT NULL,
  machine_id TEXT NOT NULL,
  bytes BIGINT,
  stand_still_ms BIGINT,
  total_ms BIGINT,
  note TEXT NOT NULL,
  message TEXT NOT NULL,
  taken BIGINT NOT NULL
);
CREATE INDEX restore_points_desktop ON restore_points(desktop_id, taken);
CREATE INDEX restore_points_course ON restore_points(course_id, taken);

-- One desktop's way back to a point; gone when it is over. state: waiting, ready (checked, its disk is
-- made as overlay_id). undo_id: the point that is to keep
-- what is there now.
CREATE TABLE restores (
  desktop_id TEXT PRIMARY KEY,
  operation_id TEXT NOT NULL,
  point_id TEXT NOT NULL,
  undo_id TEXT NOT NULL,
  overlay_id TEXT NOT NULL,
  state TEXT NOT NULL,
  created BIGINT NOT NULL
);

-- every_min: 0: no schedule. keep_last: so many of the newest; keep_hourly: of older ones one per hour, so many.
-- last_run: when points were last to be taken. own_restore: whether students may restore their own desktops.
CREATE TABLE point_schedules (
  course_id TEXT PRIMARY KEY REFERENCES courses(id) ON DELETE CASCADE,
  every_min BIGINT NOT NULL,
  keep_last BIGINT NOT NULL,
  keep_hourly BIGINT NOT NULL,
  own_restore SMALLINT NOT NULL,
  last_run BIGINT NOT NULL
);
