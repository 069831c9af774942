-- The code version is an epoch of the fold: older code does not fold what newer code has folded.
ALTER TABLE sightline.progress
    -- The code version of the view, or a higher one of a batch or a retry that wrote here. Only an operator's decision lowers
    -- it.
    ADD code_version integer NOT NULL DEFAULT 0;
UPDATE sightline.progress AS p
SET code_version = v.code_version
FROM sightline.views AS v
WHERE v.domain = p.domain AND v.version = p.version;

ALTER TABLE sightline.views
    -- An operator let older code go on where newer code had folded: a rebuild mends that.
    ADD mixed_code boolean NOT NULL DEFAULT false;

ALTER TABLE sightline.dead_letters
    -- The version of the catalogue of event types by which the record was last read.
    ADD catalogue_version integer NOT NULL DEFAULT 1;
