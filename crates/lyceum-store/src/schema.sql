-- One text for SQLite and PostgreSQL: TEXT, BIGINT, SMALLINT (0 or 1), DOUBLE PRECISION.
-- Times are milliseconds since 1970 UTC. Statements end with a semicolon at the end of a line.

-- source: who checks the password: 'local', later a directory. deleting: the account is
-- closed, the row goes when the last desktop is gone.
CREATE TABLE users (
  id TEXT PRIMARY KEY,
  login TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  password_hash TEXT,
  source TEXT NOT NULL,
  disabled SMALLINT NOT NULL,
  deleting SMALLINT NOT NULL,
  created BIGINT NOT NULL
);

-- secret_hash: hex of the hash of a random secret; the secret itself is never stored.
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  secret_hash TEXT NOT NULL UNIQUE,
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  created BIGINT NOT NULL,
  last_seen BIGINT NOT NULL,
  client TEXT NOT NULL,
  address TEXT NOT NULL,
  may_set_password SMALLINT NOT NULL
);
CREATE INDEX sessions_user ON sessions(user_id);

-- One-time sign-in links and join tokens. purpose: 'sign_in' (subject: user id) or 'join'
-- (subject: KIND/NAME). used: when, or NULL.
CREATE TABLE one_time (
  secret_hash TEXT PRIMARY KEY,
  purpose TEXT NOT NULL,
  subject TEXT NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  used BIGINT
);

CREATE TABLE settings (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE audit (
  id BIGINT PRIMARY KEY,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  detail TEXT NOT NULL,
  address TEXT NOT NULL
);

CREATE TABLE agents (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  url TEXT NOT NULL,
  state TEXT NOT NULL,
  joined BIGINT NOT NULL,
  heard BIGINT,
  facts TEXT
);

CREATE TABLE images (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  description TEXT NOT NULL,
  created BIGINT NOT NULL
);

-- damage: which file is damaged and how, in words, while state is 'damaged'.
CREATE TABLE releases (
  id TEXT PRIMARY KEY,
  image_id TEXT NOT NULL REFERENCES images(id),
  version BIGINT NOT NULL,
  state TEXT NOT NULL,
  manifest TEXT NOT NULL,
  bytes_on_disk BIGINT NOT NULL,
  note TEXT NOT NULL,
  sealed_by TEXT NOT NULL,
  sealed_at BIGINT NOT NULL,
  damage TEXT,
  UNIQUE (image_id, version)
);

-- One open draft per image. state: empty, importing, ready, sealing. work: JSON of the
-- step a reconciler is to carry out, NULL when there is nothing to do.
CREATE TABLE drafts (
  id TEXT PRIMARY KEY,
  image_id TEXT NOT NULL UNIQUE REFERENCES images(id),
  state TEXT NOT NULL,
  detail TEXT NOT NULL,
  percent DOUBLE PRECISION,
  from_release TEXT,
  vcpus BIGINT NOT NULL,
  memory_mib BIGINT NOT NULL,
  iso SMALLINT NOT NULL,
  owner TEXT NOT NULL,
  work TEXT,
  operation_id TEXT,
  created BIGINT NOT NULL
);

-- release_id: a pinned release; NULL: the image's newest offered one. vcpus, memory_mib: NULL: as
-- the release was sealed. deleting: nobody sees it any more, the row goes with its last desktop.
CREATE TABLE courses (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  image_id TEXT NOT NULL REFERENCES images(id),
  release_id TEXT REFERENCES releases(id),
  vcpus BIGINT,
  memory_mib BIGINT,
  persistence TEXT NOT NULL,
  outside SMALLINT NOT NULL,
  deleting SMALLINT NOT NULL,
  created BIGINT NOT NULL
);

CREATE TABLE members (
  course_id TEXT NOT NULL REFERENCES courses(id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  role TEXT NOT NULL,
  PRIMARY KEY (course_id, user_id)
);
CREATE INDEX members_user ON members(user_id);

-- A desktop, or the machine a draft is open in (kind 'draft': no course, no user).
-- First what should be, then what was assigned, then what its host said last.
CREATE TABLE desktops (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  course_id TEXT REFERENCES courses(id),
  user_id TEXT REFERENCES users(id),
  draft_id TEXT,
  hostname TEXT NOT NULL,
  vcpus BIGINT NOT NULL,
  memory_mib BIGINT NOT NULL,
  persistence TEXT NOT NULL,
  outside SMALLINT NOT NULL,

  desired TEXT NOT NULL,
  source TEXT NOT NULL,
  renew SMALLINT NOT NULL,
  hand_out_delta TEXT,
  order_id TEXT,
  ordered_at BIGINT NOT NULL,
  gave_up SMALLINT NOT NULL,

  generation BIGINT NOT NULL,
  release_id TEXT,
  host_id TEXT,
  overlay_id TEXT,
  delta_id TEXT,
  saving_delta TEXT,
  vm_generation_id TEXT NOT NULL,
  machine_id TEXT NOT NULL,
  mac TEXT NOT NULL,
  address TEXT NOT NULL,

  observed_generation BIGINT NOT NULL,
  phase TEXT NOT NULL,
  detail TEXT NOT NULL,
  started_by TEXT,
  cold_reason TEXT,
  guest_address TEXT,
  ssh_host_key TEXT,
  usable_ms BIGINT,
  delta_bytes BIGINT,
  suspend_ms BIGINT,
  notice TEXT,
  restarts BIGINT NOT NULL,
  restarts_since BIGINT NOT NULL,
  changed BIGINT NOT NULL,
  created BIGINT NOT NULL,
  UNIQUE (course_id, user_id)
);
CREATE INDEX desktops_host ON desktops(host_id);

CREATE TABLE placements (
  id TEXT PRIMARY KEY,
  desktop_id TEXT NOT NULL,
  at BIGINT NOT NULL,
  host_id TEXT,
  reason TEXT NOT NULL,
  snapshot TEXT NOT NULL
);
CREATE INDEX placements_desktop ON placements(desktop_id, at);

-- data: JSON of what a workflow (hand-out, seal, import) has to know after a restart.
CREATE TABLE operations (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  target_name TEXT NOT NULL,
  course_id TEXT,
  requested_by TEXT NOT NULL,
  state TEXT NOT NULL,
  step TEXT NOT NULL,
  data TEXT NOT NULL,
  created BIGINT NOT NULL,
  ended BIGINT
);

CREATE TABLE operation_items (
  operation_id TEXT NOT NULL REFERENCES operations(id) ON DELETE CASCADE,
  target TEXT NOT NULL,
  name TEXT NOT NULL,
  state TEXT NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY (operation_id, target)
);
