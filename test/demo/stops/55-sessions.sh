# Session tokens, and reads from the standby.

stop "What a session has written is found on the standby, however far behind it is"
explain "Replay is paused on a1, so it cannot have what is written on a. The token that came with the" \
	"commit's answer tells a1 what to wait for, here at most a second."
on a1 <<'SQL'
SELECT pg_wal_replay_pause();
SQL
await 10 a1 "SELECT pg_get_wal_replay_pause_state() = 'paused'"
on a <<'SQL'
CREATE TABLE note (body text);
INSERT INTO note VALUES ('written on a');
SQL
token=$(psql -X -Atq -h "$DEMO_SOCKETS" -p "${port[a]}" -d bank -U postgres \
	-c "UPDATE note SET body = 'written on a, for all to see'" -c 'SELECT concord.token()')
on a1 <<SQL
SELECT concord.covers('$token');
SET concord.wait_timeout = '1s';
SET concord.token = '$token';
SQL
expect '^ f$'
expect '^ERROR: +PC004: '
explain "Now it waits while replay goes on."
on a1 <<SQL
SELECT pg_wal_replay_resume();
SET concord.token = '$token';
SELECT pg_is_in_recovery(), body FROM note;
SQL
expect '^ t +\| written on a, for all to see$'
seen

stop "One token covers all nodes; routed reads go to the standby"
explain "The session on b writes on a and here. At level \"session\" its reads of a are answered by a1, which" \
	"first applies what the session has written."
await 10 b "SELECT can_serve FROM concord.replicas WHERE replica = 'a1'"
on b <<'SQL'
BEGIN;
SELECT concord.execute_on('a', 'UPDATE note SET body = ''from b''');
CREATE TABLE note_b (body text);
COMMIT;
SELECT split_part(p, '.', 1) AS node_id, p AS position
    FROM regexp_split_to_table(concord.token(), ';') AS p WHERE p NOT LIKE 'c1:%';
SET concord.consistency = session;
SELECT * FROM concord.query_on('a', 'SELECT pg_is_in_recovery(), body FROM note') AS (standby boolean, body text);
SELECT reads_replica, reads_primary, reads_again FROM concord.session_stats;
DROP TABLE note_b;
SQL
expect '^ 1 +\| 1\.1:'
expect '^ 2 +\| 2\.1:'
expect '^ t +\| from b$'
seen
