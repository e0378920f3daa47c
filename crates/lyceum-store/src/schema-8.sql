-- Native SPICE clients.

-- Whether the course's desktops serve SPICE as well, from their next start on.
ALTER TABLE courses ADD COLUMN spice SMALLINT NOT NULL DEFAULT 0;
