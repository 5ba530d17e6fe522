-- The entry node's PL/Proxy: one partition per slot, so that it finds the same owners by its own means.
CREATE EXTENSION plproxy;
SELECT 'CREATE SERVER bench FOREIGN DATA WRAPPER plproxy OPTIONS ('
	|| string_agg(format('p%s %L', slot, format('host=127.0.0.1 port=%s dbname=%s', port, dbname)), ', ' ORDER BY slot)
	|| ')'
FROM concord.slots JOIN concord.nodes USING (node) \gexec
CREATE USER MAPPING FOR CURRENT_USER SERVER bench OPTIONS (user :'USER');
CREATE SCHEMA plproxy_way;
CREATE FUNCTION plproxy_way.balance(key int) RETURNS int LANGUAGE plproxy AS $$
	CLUSTER 'bench';
	RUN ON hashint8extended(key, 0);
	SELECT abalance FROM pgbench_accounts WHERE aid = key;
$$;
CREATE FUNCTION plproxy_way.add_one(key int) RETURNS int LANGUAGE plproxy AS $$
	CLUSTER 'bench';
	RUN ON hashint8extended(key, 0);
	SELECT public.add_one(key);
$$;
