-- When an operator resumes the domain after a restore of the database: what may have been sent by the state that was lost is not sent
-- again. That is what was open in the restored state, and what events make that were projected before.
UPDATE notification.deliveries AS d
SET state = 'expired', due_at = NULL, last_error = 'not known whether it was sent before the database was restored'
FROM notification_live.view_version AS v, sightline.domains AS s, notification_live.notifications AS n
LEFT JOIN notification.restores AS r ON r.log_id = n.log_id
WHERE s.domain = 'notification' AND s.database_went_back_at IS NOT NULL
  AND n.notification_id = d.notification_id
  AND d.state IN ('ready', 'leased', 'backoff', 'held')
  AND (d.made_at < s.database_went_back_at OR n.record_offset < r.projected_before)
