-- Views of which nothing was projected yet are built by this release's code, whatever release their migration is of.
UPDATE sightline.views AS v
SET code_version = n.code_version
FROM (VALUES ('personalization', 2), ('audit', 2)) AS n (domain, code_version)
WHERE v.domain = n.domain AND v.code_version < n.code_version
  AND NOT EXISTS (SELECT FROM sightline.progress AS p
                  WHERE p.domain = v.domain AND p.version = v.version AND p.read > 0);
