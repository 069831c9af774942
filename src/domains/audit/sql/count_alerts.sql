-- Adds to windows ($1 to $6) how much was seen ($7), whether that is enough ($8), when ($9, $10), and in which events ($11: JSON arrays).
-- Once a window has 100 events, only earlier ones change the list; else the stored one is not written again.
INSERT INTO alert_windows AS w (kind, key_hash, window_start, window_seconds, key, key_start, count, threshold, first_event_at,
                                last_event_at, events)
SELECT n.kind, n.key_hash, to_timestamp(n.begins), n.seconds, n.key, n.key_start, n.count, n.threshold, n.first_at,
       n.last_at, ARRAY (SELECT json_array_elements_text(n.events::json))
FROM unnest($1::smallint[], $2::uuid[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
            $9::timestamptz[], $10::timestamptz[], $11::text[])
     AS n (kind, key_hash, begins, seconds, key, key_start, count, threshold, first_at, last_at, events)
ORDER BY n.kind, n.key_hash, n.begins
ON CONFLICT (kind, key_hash, window_start) DO UPDATE
    SET count = w.count + excluded.count,
        threshold = excluded.threshold,
        first_event_at = least(w.first_event_at, excluded.first_event_at),
        last_event_at = greatest(w.last_event_at, excluded.last_event_at),
        events = CASE WHEN cardinality(w.events) = 100 AND excluded.events[1] > w.events[100] THEN w.events
                      ELSE ARRAY (SELECT e
                                  FROM unnest(w.events || excluded.events) AS e
                                  ORDER BY e COLLATE "C"
                                  LIMIT 100)
                 END
