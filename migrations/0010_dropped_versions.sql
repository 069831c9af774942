-- A version is removed in two steps: marked as dropped in a short transaction, then deleted as locks allow. A backup that
-- reads its tables delays only the second step.
ALTER TABLE sightline.views DROP CONSTRAINT views_state_check;
ALTER TABLE sightline.views ADD CONSTRAINT views_state_check CHECK (state IN ('live', 'building', 'retired', 'dropped'));
