-- Returns the statements that grant on a version's schema ($2) and its tables what others than the owners may do with
-- the live ones ($1): LIKE copies no grants.
WITH granted AS (
    SELECT 'SCHEMA' AS kind, NULL::name AS relation, NULL::name AS attribute, a.*, n.nspowner AS owner
    FROM pg_namespace n, aclexplode(n.nspacl) a
    WHERE n.nspname = $1
    UNION ALL
    SELECT 'TABLE', c.relname, NULL, a.*, c.relowner
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'
    UNION ALL
    SELECT 'TABLE', c.relname, t.attname, a.*, c.relowner
    FROM pg_class c
    JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped, aclexplode(t.attacl) a
    WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'
)
SELECT format('GRANT %s%s ON %s %I%s TO %s%s', privilege_type, ' (' || quote_ident(attribute) || ')', kind, $2::text,
              '.' || quote_ident(relation),
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
              CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END) AS "statement!"
FROM granted
WHERE grantee <> owner
ORDER BY kind, relation, attribute, grantee, privilege_type
