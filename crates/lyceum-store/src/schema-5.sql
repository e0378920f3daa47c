-- Measurements, plans and power.

-- Averages over `span` minutes (1, or 10 when they are older) that begin at `at`, by the controller's clock.
-- subject: host/ID or desktop/ID; host_id: where it was measured. cpu: percent of the host, of a desktop's own
-- virtual CPUs; memory_kib: Pss, so shared pages are not counted twice. Rates are bytes per second, NULL where
-- they can't be measured. count: how many measurements the average is of.
CREATE TABLE samples (
  subject TEXT NOT NULL,
  span BIGINT NOT NULL,
  at BIGINT NOT NULL,
  host_id TEXT NOT NULL,
  cpu DOUBLE PRECISION NOT NULL,
  memory_kib BIGINT NOT NULL,
  read_rate BIGINT,
  written_rate BIGINT,
  received_rate BIGINT,
  sent_rate BIGINT,
  desktops BIGINT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (subject, span, at)
);
CREATE INDEX samples_at ON samples(span, at);

-- What is known of a host's power. A host without a row is on and can't be switched.
-- state: on, waking, off, going_off. since: when that began. wanted: on or off while it is to be switched.
-- plan_id: the plan that wants it. tries: how often it was told since `since`. failure: why it could not be
-- switched the last time, failed_at when. heard_since: since when its agent is heard without a gap.
-- setup: JSON of how it is switched and what it draws; passwords are in files, named there.
CREATE TABLE host_power (
  host_id TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  since BIGINT NOT NULL,
  wanted TEXT,
  plan_id TEXT,
  told BIGINT,
  tries BIGINT NOT NULL,
  failure TEXT NOT NULL,
  failed_at BIGINT,
  heard_since BIGINT,
  setup TEXT NOT NULL
);

-- Estimated energy of a host on a day (UTC, ms of its begin): drawn, and what it would have drawn had it been
-- on all the time. Watt seconds.
CREATE TABLE energy (
  day BIGINT NOT NULL,
  host_id TEXT NOT NULL,
  drawn_ws DOUBLE PRECISION NOT NULL,
  always_ws DOUBLE PRECISION NOT NULL,
  on_ms BIGINT NOT NULL,
  PRIMARY KEY (day, host_id)
);

-- Plans. state: shown (nobody carries it out), idle (nothing to do), running, done, failed, stopped.
-- ordered_by: who ordered it; NULL: it came by itself. policy, snapshot, plan: JSON of what went in and came out.
-- steps: JSON of what is done and how far it is. acted_at: when its first step was taken.
CREATE TABLE plans (
  id TEXT PRIMARY KEY,
  at BIGINT NOT NULL,
  mode TEXT NOT NULL,
  reason TEXT NOT NULL,
  ordered_by TEXT,
  state TEXT NOT NULL,
  message TEXT NOT NULL,
  stop SMALLINT NOT NULL,
  policy TEXT NOT NULL,
  snapshot TEXT NOT NULL,
  plan TEXT NOT NULL,
  steps TEXT NOT NULL,
  acted_at BIGINT,
  changed BIGINT NOT NULL,
  ended BIGINT
);
CREATE INDEX plans_at ON plans(at);
