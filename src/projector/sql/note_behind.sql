-- Notes since when the partitions of a domain's versions have been behind or failed. A commit clears it.
UPDATE sightline.progress AS p
SET behind_since = now()
FROM sightline.views AS v
LEFT JOIN sightline.progress AS row USING (domain, version)
LEFT JOIN sightline.log_offsets AS ends USING (log_id)
WHERE v.domain = $1 AND v.state <> 'dropped'
  AND (p.domain, p.version, p.log_id) = (row.domain, row.version, row.log_id)
  AND row.ended_at IS NULL AND row.behind_since IS NULL
  AND (row.failure IS NOT NULL OR row.next_offset < ends.log_end_offset)
