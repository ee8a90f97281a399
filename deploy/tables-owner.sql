-- Gives the service's tables that are there already to the role morag_migrator, as docs/row-security.md says:
-- run it behind roles.sql, in the service's database with psql, as an administrator.
-- Whoever owned them becomes a member of morag_migrator, and so goes on as before, until you take that back.
\set ON_ERROR_STOP on
BEGIN;
-- Rather give up than have everybody wait behind a long transaction: run it again then.
SET LOCAL lock_timeout = '5s';

-- By their names, as other applications may have tables here as well.
CREATE TEMPORARY TABLE moved ON COMMIT DROP AS
SELECT c.oid, c.relname, pg_get_userbyid(c.relowner) AS owner
FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
  AND pg_get_userbyid(c.relowner) <> 'morag_migrator' AND c.relname IN (
    'alembic_version', 'api_key_calls', 'api_keys', 'audit_events', 'audit_subjects', 'auth_epoch',
    'database_grants', 'databases', 'documents', 'job_checkpoints', 'job_events', 'job_floors', 'job_log',
    'job_turns', 'jobs', 'password_resets', 'quotas', 'request_records', 'reset_requests', 'servers',
    'sessions', 'tries', 'user_settings', 'users', 'workers'
  );

DO $$ BEGIN
  IF EXISTS (SELECT FROM moved JOIN pg_roles ON rolname = owner WHERE NOT rolinherit AND NOT rolsuper) THEN
    RAISE EXCEPTION 'the owner of the tables has NOINHERIT and would lose them: ALTER ROLE it INHERIT first';
  END IF;
END $$;

SELECT format('GRANT morag_migrator TO %I', r.rolname) FROM pg_roles AS r
WHERE NOT r.rolsuper AND r.rolname IN (SELECT owner FROM moved)
\gexec
SELECT format('ALTER TABLE public.%I OWNER TO morag_migrator', relname) FROM moved
\gexec
-- What an earlier 'enable' of the owner before made.
SELECT format('ALTER FUNCTION %s OWNER TO morag_migrator', oid::regprocedure) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND proname IN ('morag_meta_shares', 'morag_meta_shares_any')
\gexec
COMMIT;
