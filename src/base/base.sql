-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_concord" to load this file. \quit

-- What users may do is granted function by function; the schema itself is open to name look-up.
GRANT USAGE ON SCHEMA concord TO PUBLIC;
COMMENT ON SCHEMA concord IS 'pg_concord: cross-node consistency for ordinary PostgreSQL servers';
