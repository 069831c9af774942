-- Whose dead letters are still to be erased: the user of this key was deleted in another log. The dead letters of the deletion's
-- own log are erased with it; those of other logs soon after, each log in a transaction that holds its progress row.
CREATE TABLE sightline.erasures (
    domain     text        NOT NULL,
    version    integer     NOT NULL,
    key_hash   uuid        NOT NULL,
    log_id     integer     NOT NULL REFERENCES sightline.logs,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, version, key_hash, log_id),
    FOREIGN KEY (domain, version) REFERENCES sightline.views ON DELETE CASCADE
);

-- All dead letters of a key, closed ones too, to erase them.
CREATE INDEX dead_letters_by_key ON sightline.dead_letters (domain, version, key_hash) WHERE key_hash IS NOT NULL;

ALTER TABLE sightline.progress
    -- Since when the log holds records that this version has not projected, without a commit in between; null after one.
    ADD behind_since timestamptz;

-- A closed dead letter without its bytes keeps no key either.
UPDATE sightline.dead_letters
SET record_key = NULL, key_hash = NULL
WHERE state IN ('applied', 'discarded') AND erased_at IS NOT NULL;
