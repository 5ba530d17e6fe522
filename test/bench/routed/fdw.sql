-- The entry node's postgres_fdw: a foreign table that is the owner's table. It does not route at all, which is the
-- cheapest it can be; a partitioned table over three foreign ones costs more. Variables: port (the owner's).
CREATE EXTENSION postgres_fdw;
CREATE SERVER owner FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port :'port', dbname :'DBNAME');
CREATE USER MAPPING FOR CURRENT_USER SERVER owner OPTIONS (user :'USER');
CREATE SCHEMA fdw_way;
CREATE FOREIGN TABLE fdw_way.accounts (aid int, bid int, abalance int, filler char(84))
	SERVER owner OPTIONS (schema_name 'public', table_name 'pgbench_accounts');
