-- fulfillment: addresses for shipping.
SELECT sightline.create_view('fulfillment', 1, 'fulfillment_live', 'live', 1);

-- What a user's addresses are made from, ready to be folded onto and to be read (the form is that of order_live.users).
CREATE TABLE fulfillment_live.users (
    user_key uuid    PRIMARY KEY,
    user_id  text    NOT NULL,
    log_id   integer,
    logs     integer NOT NULL,
    revision bigint  NOT NULL,
    state    jsonb   NOT NULL
) WITH (fillfactor = 90);

-- What events told of it, in the order in which it was folded (the form is that of order_live.user_history).
CREATE TABLE fulfillment_live.user_history (
    user_key      uuid        NOT NULL,
    revision      bigint      NOT NULL,
    sequence      integer     NOT NULL,
    occurred_at   timestamptz NOT NULL,
    log_id        integer     NOT NULL,
    record_offset bigint      NOT NULL,
    fact          jsonb       NOT NULL,
    PRIMARY KEY (user_key, revision, sequence)
);

-- Each address of each user as it is answered, found by its own id, by country and validation, and, for whoever
-- follows what changes, by the place of its last change. One that is gone stays, with its ids alone.
CREATE TABLE fulfillment_live.shipping_addresses (
    address_key    uuid    NOT NULL,  -- the first 16 bytes of the address id's SHA-256
    user_key       uuid    NOT NULL,
    address_id     text    NOT NULL,
    user_id        text    NOT NULL,
    log_id         integer NOT NULL,
    next_offset    bigint  NOT NULL,
    sequence       bigint  NOT NULL,
    address        jsonb,
    country_key    uuid,              -- of the country's code, which may be of any length
    status         text,              -- what validation says
    -- The event that last told of it: of two users who claim one address id, the later claim counts.
    updated_at     timestamptz,
    updated_log    integer,
    updated_offset bigint,
    PRIMARY KEY (address_key, user_key)
) WITH (fillfactor = 90);
CREATE INDEX shipping_addresses_by_status ON fulfillment_live.shipping_addresses (status, address_key, user_key);
CREATE INDEX shipping_addresses_by_country ON fulfillment_live.shipping_addresses (country_key, status, address_key, user_key);
CREATE INDEX shipping_addresses_by_place ON fulfillment_live.shipping_addresses (log_id, next_offset, sequence);
