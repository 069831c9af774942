-- Lets code of a version ($2) fold a domain's live view ($1), where newer code has folded it or has begun it. The caller has
-- raised the epochs.
WITH live AS (
    UPDATE sightline.views AS v
    SET mixed_code = true, code_version = least(v.code_version, $2)
    WHERE v.domain = $1 AND v.state = 'live'
      AND (v.code_version > $2
           OR EXISTS (SELECT FROM sightline.progress AS p
                      WHERE p.domain = v.domain AND p.version = v.version AND p.code_version > $2))
    RETURNING v.domain, v.version
)
UPDATE sightline.progress AS p
SET code_version = $2
FROM live
WHERE p.domain = live.domain AND p.version = live.version AND p.code_version > $2
