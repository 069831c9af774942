-- Gives logs that were recorded while the topic's id was unknown that id ($3): as far as is known, they are of this
-- incarnation.
UPDATE sightline.logs SET topic_identity = $3
WHERE cluster_id = $1 AND topic = $2 AND topic_identity = '-'
  AND NOT EXISTS (SELECT FROM sightline.logs WHERE cluster_id = $1 AND topic = $2 AND topic_identity = $3)
