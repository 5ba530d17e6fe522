# Membership: create_cluster, add_node, nodes.

stop "Three servers become one cluster"
explain "Each server has pg_concord in shared_preload_libraries and the extension in a database." \
	"The first makes the cluster, the others are taken in: no coordinator, nothing else to install."
for node in b c; do
	on $node <<<'CREATE EXTENSION pg_concord;'
	expect '^CREATE EXTENSION'
done
on a <<SQL
CREATE EXTENSION pg_concord;
SELECT concord.create_cluster('a', '$(conninfo a)');
SELECT concord.add_node('b', '$(conninfo b)');
SELECT concord.add_node('c', '$(conninfo c)');
SQL
expect '^ [0-9a-f]{8}-[0-9a-f-]{27}$'
await 20 c "SELECT count(*) = 3 AND bool_and(state = 'up') FROM concord.nodes"
on c <<'SQL'
SELECT node_id, node, port, state, slots, is_local FROM concord.nodes ORDER BY node_id;
SQL
expect '^ +3 \| c +\| 5503 \| up +\| +0 \| t$'
seen
