-- The feed of significant changes is read by an index of its own: after an import, millions of others may lie before the first.
SELECT sightline.in_every_version('order', $$
    CREATE INDEX address_changes_significant ON address_changes (log_id, next_offset, sequence)
        WHERE significant OR deletion_type IS NOT NULL;
$$);
