-- A line for pgbench that draws :aid from :keys keys of this node, spread evenly over its table: a tree of CASE, one
-- level per bit, since pgbench has neither arrays nor this hash. It costs about a microsecond and is the same for all.
-- Variables: keys (a power of two).
CREATE FUNCTION pg_temp.tree(keys int[], first int, n int) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN n = 1 THEN keys[first + 1]::text
		ELSE format('CASE WHEN :i < %s THEN %s ELSE %s END', first + n / 2,
			pg_temp.tree(keys, first, n / 2), pg_temp.tree(keys, first + n / 2, n / 2)) END
$$;
SELECT format(E'\\set i random(0, %s)', :keys - 1);
SELECT '\set aid ' || pg_temp.tree(array_agg(aid ORDER BY aid), 0, :keys)
FROM (SELECT min(aid) AS aid
	FROM (SELECT aid, ntile(:keys) OVER (ORDER BY aid) AS part FROM pgbench_accounts) AS parts
	GROUP BY part) AS chosen;
