# Nodes come and go.

stop "Nodes come and go; one that still owns keys is not let go"
explain "A node is a database: this one is on the server of node c."
ask c 'CREATE DATABASE spare' postgres
ask c 'CREATE EXTENSION pg_concord' spare
on b <<SQL
SELECT concord.add_node('d', '$(conninfo c spare)', weight => 2);
SELECT node, weight, slots FROM concord.nodes ORDER BY node;
SELECT target, count(*) AS would_move FROM concord.rebalance_plan() GROUP BY 1;
SELECT concord.remove_node('c');
SELECT concord.remove_node('d');
SELECT node, slots FROM concord.nodes ORDER BY node;
SQL
expect '^ d +\| +2 \| +0$'
expect '^ d +\| +163[89]$'
expect '^ERROR: +55006: '
expect '^ c +\| +136[56]$'
await 20 a "SELECT count(*) = 3 FROM concord.nodes"
seen
