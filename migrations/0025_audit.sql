-- audit: the security log.
SELECT sightline.create_view('audit', 1, 'audit_live', 'live', 1);

-- One row per event that was applied. Never changed but by an erasure.
CREATE TABLE audit_live.entries (
    log_id         integer            NOT NULL,
    -- The entry's number in the chain of its log: from 1, without gaps, in the order of application.
    sequence       bigint             NOT NULL,
    -- What happened (`Action` in model.rs); 0 if the type is unknown.
    action         smallint           NOT NULL,
    partition      integer            NOT NULL,
    record_offset  bigint             NOT NULL,
    occurred_at    timestamptz        NOT NULL,
    recorded_at    timestamptz        NOT NULL,
    event_id       text               NOT NULL,
    -- Hashes of the ids, by which entries are found. actor_key is null where it would be that of the user.
    user_key       uuid,
    actor_key      uuid,
    role_key       uuid,
    permission_key uuid,
    ip_key         uuid,
    -- JSON: what is never erased.
    facts          sightline.document NOT NULL,
    -- Erased with the user.
    ip_address     text,
    user_agent     text,
    -- JSON: the values of the changed fields, whose names are in facts.
    changed_values sightline.document,
    -- 16 random bytes for each of the last three that there is; once these are erased null.
    salts          bytea,
    -- SHA-256 of the salt and the value of each that was erased, from which the link can still be computed.
    digests        bytea,
    -- HMAC of the link before and of this entry (`chain.rs`).
    link           bytea              NOT NULL,
    PRIMARY KEY (log_id, sequence)
);
-- Each filter is a walk of an index, for each action separately, newest first.
CREATE INDEX entries_by_action ON audit_live.entries (action, occurred_at, partition, record_offset, log_id);
-- A list of one unknown type reads only that type's entries. The index has a hash of the type, which may be of any length.
CREATE INDEX entries_of_unknown_type
    ON audit_live.entries (md5(facts::json ->> 'type'), occurred_at, partition, record_offset, log_id) WHERE action = 0;
CREATE INDEX entries_of_user ON audit_live.entries (user_key, action, occurred_at, partition, record_offset, log_id)
    WHERE user_key IS NOT NULL;
CREATE INDEX entries_of_actor ON audit_live.entries (actor_key, action, occurred_at, partition, record_offset, log_id)
    WHERE actor_key IS NOT NULL;
CREATE INDEX entries_of_role ON audit_live.entries (role_key, action, occurred_at, partition, record_offset, log_id)
    WHERE role_key IS NOT NULL;
CREATE INDEX entries_from_ip ON audit_live.entries (ip_key, action, occurred_at, partition, record_offset, log_id)
    WHERE ip_key IS NOT NULL;
CREATE INDEX entries_of_permission ON audit_live.entries (permission_key, action) WHERE permission_key IS NOT NULL;

-- How far each log's chain reaches. Only a transaction that holds the log's progress row changes it.
CREATE TABLE audit_live.chains (
    log_id   integer PRIMARY KEY,
    -- The number of the last entry.
    sequence bigint  NOT NULL,
    -- The head: the last link.
    link     bytea   NOT NULL,
    -- Identifies the key that the chain is made with; null without a key.
    key_id   bytea
);

-- Users whom an event deleted, and when the projector erases what their entries hold.
CREATE TABLE audit_live.deleted_users (
    user_key   uuid        PRIMARY KEY,
    -- From when on entries of the user hold no personal data: -infinity after a hard deletion.
    erase_from timestamptz NOT NULL,
    -- When maintenance erases what the user's entries hold; null when that is done.
    sweep_at   timestamptz
);
CREATE INDEX deleted_users_to_sweep ON audit_live.deleted_users (sweep_at) WHERE sweep_at IS NOT NULL;

-- What was seen in windows of time; an alert once it is enough.
CREATE TABLE audit_live.alert_windows (
    -- 1: brute_force, 2: credential_stuffing, 3: mfa_fatigue.
    kind           smallint    NOT NULL,
    key_hash       uuid        NOT NULL,
    window_start   timestamptz NOT NULL,
    window_seconds integer     NOT NULL,
    key            text        NOT NULL,
    -- The first 100 characters of the key, by which alerts are ordered.
    key_start      text COLLATE "C" NOT NULL,
    count          bigint      NOT NULL,
    -- What was enough when something was counted last.
    threshold      bigint      NOT NULL,
    first_event_at timestamptz NOT NULL,
    last_event_at  timestamptz NOT NULL,
    -- The first 100 events, each as its time in microseconds, in 16 digits, and its id.
    events         text[] COLLATE "C" NOT NULL,
    is_alert       boolean     NOT NULL GENERATED ALWAYS AS (count >= threshold) STORED,
    PRIMARY KEY (kind, key_hash, window_start)
) WITH (fillfactor = 80);
CREATE INDEX alerts ON audit_live.alert_windows (kind, window_start DESC, key_start, key_hash) WHERE is_alert;

-- The accounts for which logins from an IP address have failed in a window (a hash of both).
CREATE TABLE audit_live.stuffed_accounts (
    window_key   uuid NOT NULL,
    account_hash uuid NOT NULL,
    PRIMARY KEY (window_key, account_hash)
);

-- What every version of the view has in common.
CREATE SCHEMA audit;
-- When an event was recorded first, and the salts of its entry until it is erased.
CREATE TABLE audit.stamps (
    log_id        integer     NOT NULL,
    record_offset bigint      NOT NULL,
    recorded_at   timestamptz NOT NULL,
    salts         bytea,
    PRIMARY KEY (log_id, record_offset)
);
-- Where a version became live: its chain of a log goes on, behind the entry of this number, with the head of the former
-- version's chain.
CREATE TABLE audit.former_heads (
    version         integer NOT NULL,
    log_id          integer NOT NULL,
    sequence        bigint  NOT NULL,
    -- Orders those at one place.
    id              bigint  GENERATED ALWAYS AS IDENTITY,
    former_version  integer NOT NULL,
    former_sequence bigint  NOT NULL,
    former_link     bytea   NOT NULL,
    PRIMARY KEY (version, log_id, sequence, id)
);
