-- order: customers for the Order Service. The state of a customer, addresses included, is one row: ready
-- to be folded onto and to be read in one look-up (docs/performance.md has the figures for that choice).
SELECT sightline.create_view('order', 1, 'order_live', 'live', 1);

CREATE TABLE order_live.customers (
    user_key uuid    PRIMARY KEY,  -- the first 16 bytes of the user id's SHA-256
    user_id  text    NOT NULL,
    log_id   integer,              -- the one log that this row is made from; null where there were several
    logs     integer NOT NULL,     -- from how many logs the view was made then: when it is other now, the user may have moved
    revision bigint  NOT NULL,     -- counts the writes: a fold of an older one is not written
    state    jsonb   NOT NULL
);
