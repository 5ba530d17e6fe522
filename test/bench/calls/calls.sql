-- Nanoseconds per call of a function, as the difference to the same scan that calls nothing. Every query makes eight
-- calls in each row of a small cached table; the queries are run in turn, :rounds times. Of five rounds the
-- least time counts, of all fives the median of the differences.
-- count() is used everywhere, so that the aggregate costs the same whatever a function returns.
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SELECT format('CREATE UNLOGGED TABLE keys_%s AS SELECT %s FROM generate_series(1, 10000) AS n', k.kind,
	string_agg(format(k.expression, 'n * 8 + ' || c) || ' AS ' || k.kind || c, ', '))
FROM (VALUES ('i', '(%s)::int8'), ('t', '''customer-'' || (%s)'), ('d', '(%s)::text'), ('u', 'md5((%s)::text)::uuid'))
	AS k (kind, expression), generate_series(1, 8) AS c
GROUP BY k.kind \gexec
VACUUM (ANALYZE, FREEZE);
CREATE TEMP TABLE calls (id int, title text, call text, reference int);
CREATE TEMP TABLE samples (round int, id int, nanoseconds float8);
INSERT INTO calls VALUES				-- the first of each ten calls nothing
	(1, NULL, 'i', NULL),
	(2, 'hashint8extended(bigint, 0)', 'hashint8extended(i, 0)', NULL),
	(3, 'concord.slot(bigint)', 'concord.slot(i)', 2),
	(4, 'concord.locate(bigint)', 'concord.locate(i)', 2),
	(11, NULL, 't', NULL),
	(12, 'hashtextextended(text, 0)', 'hashtextextended(t, 0)', NULL),
	(13, 'concord.slot(text), any text', 'concord.slot(t)', 12),
	(14, 'concord.locate(text), any text', 'concord.locate(t)', 12),
	(21, NULL, 'd', NULL),
	(22, 'hashtextextended(text, 0), digits', 'hashtextextended(d, 0)', NULL),
	(23, 'concord.slot(text), digits', 'concord.slot(d)', 22),
	(31, NULL, 'u', NULL),
	(32, 'uuid_hash_extended(uuid, 0)', 'uuid_hash_extended(u, 0)', NULL),
	(33, 'concord.slot(uuid)', 'concord.slot(u)', 32);
CREATE FUNCTION pg_temp.run(rounds int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c record;
	query text;
	started timestamptz;
	took float8;
BEGIN
	FOR r IN 0 .. rounds LOOP				-- round 0 warms up
		FOR c IN SELECT * FROM calls ORDER BY id LOOP
			SELECT 'SELECT ' || string_agg(format('count(%s)', regexp_replace(c.call, '\m[itdu]\M', '\&' || k)), ', ')
				|| ' FROM keys_' || substring(c.call FROM '\m[itdu]\M')
			INTO query FROM generate_series(1, 8) AS k;
			started := clock_timestamp();
			EXECUTE query;
			took := extract(epoch FROM clock_timestamp() - started) * 1e9 / 80000;
			INSERT INTO samples SELECT r, c.id, took WHERE r > 0;
		END LOOP;
	END LOOP;
END $$;
SELECT pg_temp.run(:rounds) \g /dev/null
DROP TABLE keys_i, keys_t, keys_d, keys_u;
WITH fives AS (
	SELECT id, round / 5 AS five, min(nanoseconds) AS ns FROM samples GROUP BY 1, 2),
net AS (
	SELECT f.id, percentile_cont(0.5) WITHIN GROUP (ORDER BY f.ns - b.ns) AS ns
	FROM fives AS f JOIN fives AS b USING (five)
	WHERE b.id = f.id / 10 * 10 + 1
	GROUP BY f.id)
SELECT format('| %s | %s | %s |', title, round(n.ns::numeric, 1),
	CASE WHEN least(n.ns, r.ns) > 0.5 AND r.ns IS NOT NULL THEN round((n.ns / r.ns)::numeric, 2)::text ELSE '' END)
FROM calls AS c JOIN net AS n ON n.id = c.id LEFT JOIN net AS r ON r.id = c.reference
WHERE title IS NOT NULL
ORDER BY c.id;
