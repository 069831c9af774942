-- A page of entries, newest first, and the positions of all logs, in one snapshot. queries.rs makes statements of this text, one
-- for each index: the lines from "each" to "end" are repeated for each condition ({found}) that finds the entries of one action by the
-- index. The index returns them in order, and Postgres merges them, so that a page reads hardly more entries than it holds.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM audit_live.view_version v
    JOIN sightline.progress p ON p.domain = 'audit' AND p.version = v.version
), page AS (
    SELECT *
    FROM (
-- each
        (SELECT e.*
         FROM audit_live.entries e
         WHERE {found}
           AND (e.occurred_at, e.partition, e.record_offset, e.log_id) < (coalesce($2::timestamptz, 'infinity'), $3::integer, $4::bigint, $5::integer)
           AND e.occurred_at >= coalesce($6::timestamptz, '-infinity')
           -- The ids are compared, too: their form in facts. The actor may be the user.
           AND ($8::uuid IS NULL OR e.user_key = $8 AND strpos(e.facts, $9::text) > 0)
           AND ($10::uuid IS NULL OR e.actor_key = $10 AND strpos(e.facts, $11::text) > 0
                OR e.actor_key IS NULL AND e.user_key = $10 AND strpos(e.facts, $12::text) > 0)
           AND ($13::uuid IS NULL OR e.role_key = $13 AND strpos(e.facts, $14::text) > 0)
           AND ($15::uuid IS NULL OR e.ip_key = $15 AND e.ip_address = $16::text)
           AND ($17::text IS NULL OR e.action <> 0 OR e.facts::json ->> 'type' = $17)
         ORDER BY e.occurred_at DESC, e.partition DESC, e.record_offset DESC, e.log_id DESC
         LIMIT $7::bigint)
-- end
    ) e
    ORDER BY occurred_at DESC, partition DESC, record_offset DESC, log_id DESC
    LIMIT $7
), sized AS (
    SELECT *, sum(octet_length(event_id) + octet_length(facts) + coalesce(octet_length(user_agent), 0)
                  + coalesce(octet_length(changed_values), 0))
              OVER (ORDER BY occurred_at DESC, partition DESC, record_offset DESC, log_id DESC
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM page
), found AS (
    SELECT array_agg(log_id) AS log_ids, array_agg(action) AS actions, array_agg(partition) AS partitions,
           array_agg(record_offset) AS record_offsets, array_agg(occurred_at) AS occurred, array_agg(recorded_at) AS recorded,
           array_agg(event_id) AS event_ids, array_agg(facts::text) AS facts, array_agg(ip_address) AS ip_addresses,
           array_agg(user_agent) AS user_agents, array_agg(changed_values::text) AS changed_values
    FROM (
        SELECT *
        FROM sized
        -- An answer holds 3 MiB. This much text is mostly more than that; where it is not ("is_cut"), the page is shorter.
        WHERE coalesce(bytes_before, 0) < 8 * 1024 * 1024
        ORDER BY occurred_at DESC, partition DESC, record_offset DESC, log_id DESC
    ) s
)
SELECT coalesce(f.log_ids, '{}') AS log_ids, coalesce(f.actions, '{}') AS actions, coalesce(f.partitions, '{}') AS partitions,
       coalesce(f.record_offsets, '{}') AS record_offsets, coalesce(f.occurred, '{}') AS occurred,
       coalesce(f.recorded, '{}') AS recorded, coalesce(f.event_ids, '{}') AS event_ids, coalesce(f.facts, '{}') AS facts,
       coalesce(f.ip_addresses, '{}') AS ip_addresses, coalesce(f.user_agents, '{}') AS user_agents,
       coalesce(f.changed_values, '{}') AS changed_values,
       (SELECT count(*) FROM page) > coalesce(cardinality(f.log_ids), 0) AS is_cut,
       v.ready AS ready,
       (SELECT d.id FROM sightline.dead_letters d
               WHERE d.domain = 'audit' AND d.version = v.version AND d.key_hash = $8
                 AND d.state IN ('parked', 'retrying') LIMIT 1) AS dead_letter,
       coalesce(p.logs, '{}') AS logs, coalesce(p.offsets, '{}') AS offsets
FROM audit_live.view_version v
CROSS JOIN found f
CROSS JOIN (SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets FROM logs) p
