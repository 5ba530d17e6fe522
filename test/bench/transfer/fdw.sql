-- The entry node's foreign tables: one for each of the two nodes. Variables: first, second (ports).
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE SCHEMA fdw_transfer;
CREATE SERVER transfer_first FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port :'first', dbname :'DBNAME');
CREATE SERVER transfer_second FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port :'second', dbname :'DBNAME');
CREATE USER MAPPING FOR CURRENT_USER SERVER transfer_first OPTIONS (user :'USER');
CREATE USER MAPPING FOR CURRENT_USER SERVER transfer_second OPTIONS (user :'USER');
CREATE FOREIGN TABLE fdw_transfer.first (aid int, bid int, abalance int, filler char(84))
	SERVER transfer_first OPTIONS (schema_name 'public', table_name 'pgbench_accounts');
CREATE FOREIGN TABLE fdw_transfer.second (aid int, bid int, abalance int, filler char(84))
	SERVER transfer_second OPTIONS (schema_name 'public', table_name 'pgbench_accounts');
