-- Views of which nothing was projected yet are built by this release's code, whatever release their migration is of.
UPDATE sightline.views AS v
SET code_version = 4
WHERE v.domain = 'order' AND v.code_version < 4
  AND NOT EXISTS (SELECT FROM sightline.progress AS p
                  WHERE p.domain = v.domain AND p.version = v.version AND p.read > 0);
