-- Desktops that stay where they are.

-- Plans leave these on their hosts; a person's order does not mind.
CREATE TABLE pinned_desktops (
  desktop_id TEXT PRIMARY KEY REFERENCES desktops(id) ON DELETE CASCADE
);
