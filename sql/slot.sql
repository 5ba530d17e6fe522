-- concord.slot(): which slot a key belongs to.  The golden table must never change: data lies where it says.
CREATE EXTENSION IF NOT EXISTS pg_concord;
SELECT * FROM (VALUES
	('bigint 0', concord.slot(0::bigint)),
	('bigint 1', concord.slot(1::bigint)),
	('bigint -1', concord.slot((-1)::bigint)),
	('bigint 42', concord.slot(42::bigint)),
	('bigint min', concord.slot((-9223372036854775808)::bigint)),
	('bigint max', concord.slot(9223372036854775807)),
	('text empty', concord.slot(''::text)),
	('text alice', concord.slot('alice'::text)),
	('text 007', concord.slot('007'::text)),
	('text +1', concord.slot('+1'::text)),
	('text -0', concord.slot('-0'::text)),
	('text long', concord.slot(repeat('x', 10000))),
	('uuid', concord.slot('0f8fad5b-d9cb-469f-a165-70867728950e'::uuid)),
	('bytea', concord.slot('\x00ff10'::bytea)),
	('date', concord.slot(date '2026-01-01')),
	('timestamptz', concord.slot(timestamptz '2026-01-01 00:00:00+00')),
	('bool true', concord.slot(true)),
	('bool false', concord.slot(false))
) AS golden(key, slot);

-- the distribution of the first keys, as one number
SELECT count(DISTINCT slot) AS slots, sum(slot::bigint * i) AS checksum
FROM (SELECT i, concord.slot(i) FROM generate_series(1, 100000) AS i) AS s(i, slot);

-- integers hash as PostgreSQL's own extended hash
SELECT count(*) AS different FROM generate_series(-300000, 300000) AS i, LATERAL (SELECT i::bigint * 7919 * 1000003 AS v) AS s
WHERE concord.slot(v) <> (hashint8extended(v, 0) & 4095);

-- one value is one key, whatever its width, and whether it came with a type or not
SELECT bool_and(concord.slot(i::smallint) = concord.slot(i) AND concord.slot(i) = concord.slot(i::bigint)
	AND concord.slot(i::text) = concord.slot(i) AND concord.slot(i::varchar) = concord.slot(i)) AS same
FROM generate_series(-32768, 32767) AS i;
SELECT concord.slot('42') = concord.slot(42) AS literal,
	concord.slot('0f8fad5b-d9cb-469f-a165-70867728950e') = concord.slot(uuid '0f8fad5b-d9cb-469f-a165-70867728950e') AS uuid,
	concord.slot('0F8FAD5B-D9CB-469F-A165-70867728950E') = concord.slot(uuid '0f8fad5b-d9cb-469f-a165-70867728950e') AS uuid_not_canonical,
	concord.slot('9223372036854775807') = concord.slot(9223372036854775807) AS max,
	concord.slot(NULL::int) IS NULL AS strict;
CREATE DOMAIN slot_key AS bigint;
SELECT concord.slot(42::slot_key) = concord.slot(42) AS domain;
DROP DOMAIN slot_key;

-- immutable and parallel safe: usable in an index
CREATE TEMP TABLE slot_rows AS SELECT i::bigint AS id FROM generate_series(1, 1000) AS i;
CREATE INDEX ON slot_rows (concord.slot(id));
SELECT count(*) FROM slot_rows WHERE concord.slot(id) = concord.slot(17::bigint) AND id = 17;

-- what does not hash the same everywhere is refused
CREATE TYPE slot_mood AS ENUM ('sad', 'ok');
SELECT concord.slot('ok'::slot_mood);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.slot(1.5);
SELECT concord.slot(1.5::float8);
SELECT concord.slot(timestamp '2026-01-01');
SELECT concord.slot(ROW(1, 2));
SELECT concord.slot(ARRAY[1]);
SELECT concord.slot('{}'::jsonb);
DROP TYPE slot_mood;
CREATE COLLATION slot_nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
SELECT concord.slot('a' COLLATE slot_nocase);
\echo :LAST_ERROR_SQLSTATE
DROP COLLATION slot_nocase;

-- outside a cluster
SELECT concord.locate(1);
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM concord.slots;
