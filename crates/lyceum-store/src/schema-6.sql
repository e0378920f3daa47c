-- The timetable.

-- uid: the event of a calendar file that it came from; NULL: made by hand. data: JSON of the lesson
-- (lyceum-timetable's Lesson; its id and course are those of the row).
CREATE TABLE lessons (
  id TEXT PRIMARY KEY,
  course_id TEXT NOT NULL REFERENCES courses(id) ON DELETE CASCADE,
  uid TEXT,
  data TEXT NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX lessons_course ON lessons(course_id);

-- kind: term or holiday. first_day, last_day: days like 2026-11-23, both in it.
CREATE TABLE school_days (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  first_day TEXT NOT NULL,
  last_day TEXT NOT NULL
);

-- What the timetable does for a course that has said so. starts: its desktops are started before the bell.
-- at_end: suspend, reset, stop or keep. grace_minutes: for those who are still connected.
CREATE TABLE course_timetables (
  course_id TEXT PRIMARY KEY REFERENCES courses(id) ON DELETE CASCADE,
  starts SMALLINT NOT NULL,
  at_end TEXT NOT NULL,
  grace_minutes BIGINT NOT NULL
);

-- What was done for an occurrence, so that it is done once. id: LESSON/DAY/BEGIN. prepared: when its desktops
-- began to be started; NULL: its time has passed without that. ended: when nothing is to be done about it any more.
-- note: why something was not done, or waits.
CREATE TABLE occurrences (
  id TEXT PRIMARY KEY,
  lesson_id TEXT NOT NULL,
  course_id TEXT NOT NULL,
  begins BIGINT NOT NULL,
  ends BIGINT NOT NULL,
  prepared BIGINT,
  ended BIGINT,
  start_operation TEXT,
  end_operation TEXT,
  note TEXT NOT NULL
);
CREATE INDEX occurrences_begins ON occurrences(begins);

-- Whose desktop was started for it.
CREATE TABLE occurrence_people (
  occurrence_id TEXT NOT NULL REFERENCES occurrences(id) ON DELETE CASCADE,
  user_id TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (occurrence_id, user_id)
);
