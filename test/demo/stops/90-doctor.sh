# The doctor, at the end: the cluster must be well after all of the above.

stop "The doctor looks at every node"
on b <<'SQL'
SELECT node, count(*) AS items, count(*) FILTER (WHERE status = 'ok') AS ok
  FROM concord.check_cluster() GROUP BY node ORDER BY node;
SELECT node, item, status, detail, hint
  FROM concord.check_cluster() WHERE node = 'c' OR status <> 'ok';
SQL
for node in a b c; do
	expect "^ $node +\\| +[1-9][0-9]* \\|"
done
expect '^ c +\| reachable +\| ok '
! grep -Eq '\| error +\|' <<<"$output" || troubles+=("the doctor found an error")
seen
