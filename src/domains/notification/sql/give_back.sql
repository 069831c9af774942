-- Gives leases ($1, $2) back of which no worker knows.
UPDATE notification.deliveries AS d
SET state = 'ready', due_at = NULL, lease_token = NULL, attempts = d.attempts - 1
FROM unnest($1::uuid[], $2::uuid[]) AS l (notification_id, lease_token)
WHERE d.notification_id = l.notification_id AND d.lease_token = l.lease_token AND d.state = 'leased'
