-- The two roles of docs/row-security.md, for one database: run it there with psql, as an administrator.
\set ON_ERROR_STOP on

-- Migrates and owns the tables, and is used for nothing else.
CREATE ROLE morag_migrator LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
\password morag_migrator

-- Serves. What it may do, 'morag-meta db row-security enable morag_service' grants.
CREATE ROLE morag_service LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT;
\password morag_service

-- Nobody else makes anything here.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO morag_migrator;
GRANT USAGE ON SCHEMA public TO morag_service;

-- Tables that are there already, as the service made them in a role of its own, change hands.
SELECT format('ALTER TABLE %I.%I OWNER TO morag_migrator', schemaname, tablename)
FROM pg_tables WHERE schemaname = 'public'
\gexec
