-- notification: what to send to users, and a queue of it.
SELECT sightline.create_view('notification', 1, 'notification_live', 'live', 1);

-- What later notifications of a user are made from (the form is that of order_live.users).
CREATE TABLE notification_live.users (
    user_key uuid               PRIMARY KEY,
    user_id  text               NOT NULL,
    log_id   integer,
    logs     integer            NOT NULL,
    revision bigint             NOT NULL,
    state    sightline.document NOT NULL
) WITH (fillfactor = 90);

-- What an event says to a user. Whether it was sent is in notification.deliveries.
CREATE TABLE notification_live.notifications (
    notification_id uuid        PRIMARY KEY,
    user_key        uuid        NOT NULL,
    user_id         text        NOT NULL,
    event_id        text        NOT NULL,
    template        text        NOT NULL,
    -- Null until an email of the user is known, and once the user was deleted.
    recipient       text,
    -- JSON; null once the user was deleted.
    data            sightline.document,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    -- Of the event's record.
    log_id          integer     NOT NULL,
    record_offset   bigint      NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX notifications_of_user ON notification_live.notifications (user_key, created_at, notification_id);
CREATE INDEX notifications_without_recipient ON notification_live.notifications (user_key)
    WHERE recipient IS NULL AND data IS NOT NULL;

-- What became of notifications: one row each, outside of the versions of the view, so that no rebuild sends anything again.
CREATE SCHEMA notification;
CREATE TABLE notification.deliveries (
    notification_id uuid        PRIMARY KEY,
    -- Copies of the notification's, so that a lease finds rows in the order of one index.
    template        text        NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    -- ready: may be leased. leased: until due_at. backoff: an attempt failed, ready again at due_at. held: the live view has no
    -- recipient, or no such notification. The others are final, but for expired, which a deletion turns into cancelled.
    state           text        NOT NULL
        CHECK (state IN ('ready', 'leased', 'backoff', 'held', 'sent', 'failed', 'cancelled', 'expired')),
    due_at          timestamptz CHECK ((due_at IS NOT NULL) = (state IN ('leased', 'backoff'))),
    -- Of the last lease. It stays when the lease runs out, until the next one: the worker may have sent the message meanwhile.
    lease_token     uuid,
    attempts        integer     NOT NULL DEFAULT 0,
    last_error      text,
    -- Of those made before a restore of the database was found, nothing later is known.
    made_at         timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- For lists.
CREATE INDEX deliveries_by_state ON notification.deliveries (state, template, created_at, notification_id);
-- The queue, whatever the template. Only a statement that has the very condition of this index, or of the last one, can use it: the planner
-- does not know that a lease wants a few rows, and would read and sort all that the other one has.
CREATE INDEX deliveries_ready ON notification.deliveries (created_at, notification_id) WHERE (state = 'ready') IS TRUE;
CREATE INDEX deliveries_due ON notification.deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_expiring ON notification.deliveries (expires_at)
    WHERE (state IN ('ready', 'leased', 'backoff', 'held')) IS TRUE;

-- The status of a notification: of its delivery (p_state, p_due_at), and where that is not final, by the clock and the live view.
CREATE FUNCTION notification.status(p_state text, p_due_at timestamptz, p_expires_at timestamptz, p_recipient text)
RETURNS text LANGUAGE sql STABLE
RETURN CASE
    WHEN p_state IN ('sent', 'failed', 'cancelled', 'expired') THEN p_state
    WHEN p_state = 'leased' AND p_due_at > now() THEN 'leased'
    WHEN p_expires_at <= now() THEN 'expired'
    WHEN p_recipient IS NULL THEN 'no_recipient'
    ELSE 'pending'
END;

-- Partitions that an earlier state of the database had projected further, and how far, where the database was restored: notifications of
-- the events before that may have been sent.
CREATE TABLE notification.restores (
    log_id           integer PRIMARY KEY,
    projected_before bigint  NOT NULL
);
