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

-- Where the service has run as another role, its tables change hands; as which role, name it:
-- REASSIGN OWNED BY morag TO morag_migrator;
