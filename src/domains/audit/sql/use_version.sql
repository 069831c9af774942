-- Points names at the tables of a version ($1), if there is such a version.
SELECT set_config('search_path', schema_name, true) AS search_path
FROM sightline.views
WHERE domain = 'audit' AND version = $1 AND state <> 'dropped'
