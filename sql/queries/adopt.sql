-- outbox.adopt: consents to this cluster.
--
-- Called by:  outbox::adopt, for `outbox-relay adopt`.
-- Locks:      outbox.entry against writers, until the log has been compared with it.
-- Returns:    how many rows were sealed, and how many carried transaction ids of another cluster.
select a.sealed, a.restamped from outbox.adopt() a
