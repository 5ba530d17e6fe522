# Replicas.

stop "A node's standby is known to the cluster"
explain "a1 is a physical standby of node a, made with pg_basebackup."
start_standby || troubles+=("the standby could not be made")
on a <<SQL
SELECT concord.add_replica('a', 'a1', '$(conninfo a1)');
SELECT replica, node, port, dbname FROM concord.replicas;
SQL
expect '^ a1 +\| a '
await 30 a1 'SELECT count(*) = 1 FROM concord.replicas'
on a1 <<'SQL'
SELECT pg_is_in_recovery(), concord.locate(42);
SQL
expect '^ t +\| [abc]'
seen
