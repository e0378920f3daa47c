-- used_by: what took the secret, so that the same may take it again when the answer was lost (join: hash
-- of the agent's public key); NULL: nobody may.
ALTER TABLE one_time ADD COLUMN used_by TEXT;
