-- Networks and doors.

-- One row: what is this classroom's alone. v6: the /48 of its segments, made by chance as RFC 4193 says.
CREATE TABLE network_site (
  id BIGINT PRIMARY KEY,
  v6 TEXT NOT NULL
);

-- number: of the course's segment, given once. listed: with the way out closed, these destinations stay open.
-- allowed: JSON list of destinations. exam_until: while it is ahead, only they are, and nobody reaches a neighbour.
CREATE TABLE course_networks (
  course_id TEXT PRIMARY KEY REFERENCES courses(id) ON DELETE CASCADE,
  number BIGINT NOT NULL UNIQUE,
  listed SMALLINT NOT NULL,
  allowed TEXT NOT NULL,
  among_themselves SMALLINT NOT NULL,
  exam_until BIGINT
);

-- A desktop's place in its course's segment, and so its address, for as long as it exists.
CREATE TABLE network_places (
  desktop_id TEXT PRIMARY KEY REFERENCES desktops(id) ON DELETE CASCADE,
  course_id TEXT NOT NULL,
  place BIGINT NOT NULL,
  UNIQUE (course_id, place)
);
