-- The two roles of docs/row-security.md: run it in the service's database with psql, as an administrator,
-- as often as you like and in as many databases. It takes nothing from anybody, so the service goes on.
\set ON_ERROR_STOP on

SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'morag_migrator') AS makes_migrator,
       NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'morag_service') AS makes_service
\gset

-- Migrates and owns the tables, and is used for nothing else.
\if :makes_migrator
CREATE ROLE morag_migrator LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
\password morag_migrator
\endif

-- Serves. What it may do, 'morag-meta db row-security enable morag_service' grants.
\if :makes_service
CREATE ROLE morag_service LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT;
\password morag_service
\endif

GRANT USAGE, CREATE ON SCHEMA public TO morag_migrator;
GRANT USAGE ON SCHEMA public TO morag_service;
