-- What became of an event is looked up by its id.
CREATE INDEX dead_letters_by_event ON sightline.dead_letters (domain, version, event_id) WHERE event_id IS NOT NULL;
