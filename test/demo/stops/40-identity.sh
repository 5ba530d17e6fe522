# Identity and secrets.

stop "Secrets and identities are guarded"
explain "No password in a connection string, no second cluster, no dropping of a member; and a copied" \
	"database is not taken for the member it was copied from."
on b <<SQL
SELECT concord.set_node('b', '$(conninfo b) password=sesame');
SELECT concord.create_cluster('x', '$(conninfo b)');
DROP EXTENSION pg_concord;
SQL
expect '^ERROR: +22023: '
expect '^ERROR: +55000: '
expect '^ERROR: +55000: .*extension'
! grep -v '^SELECT' <<<"$output" | grep -q sesame || troubles+=("the password was shown")
on b <<'SQL'
\c postgres
CREATE DATABASE copy TEMPLATE bank;
\c copy
SELECT * FROM concord.query(1, 'SELECT 1') AS (one int);
\c postgres
DROP DATABASE copy;
SQL
expect '^CREATE DATABASE$'
expect '^ERROR: +55000: '
expect '^DROP DATABASE$'
seen
