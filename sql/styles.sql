-- Values travel unchanged whatever the caller's formats are, and the statement there sees these.
CREATE DATABASE regress_style_a TEMPLATE template0;
CREATE DATABASE regress_style_b TEMPLATE template0;
SELECT format('host=%s port=%s user=%s dbname=', split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_user) AS server \gset
\set conninfo_a '\'' :server 'regress_style_a\''
\set conninfo_b '\'' :server 'regress_style_b\''

\c regress_style_b
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
CREATE TYPE stamped AS (at timestamptz, n float8);
CREATE TABLE moment (at timestamptz, day date);
CREATE TABLE seen (style text, at text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	style text := current_setting('DateStyle');
	at text := NEW.at::text;
BEGIN
	INSERT INTO seen VALUES (style, at);
	RETURN NULL;
END $$;
CREATE TRIGGER see AFTER INSERT ON moment FOR EACH ROW EXECUTE FUNCTION see();
CREATE FUNCTION failing() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE '%', timestamptz '2026-02-03 04:05:06+00'; END $$;
CREATE FUNCTION caught() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN failing();
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM || ' ' || timestamptz '2026-02-03 04:05:06+00';
END $$;
\c regress_style_a
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
RESET client_min_messages;
CREATE TYPE stamped AS (at timestamptz, n float8);
SELECT concord.create_cluster('a', :conninfo_a) IS NOT NULL AS created;
SELECT concord.add_node('b', :conninfo_b);

-- What is wrong with values sent to b under these formats, if anything.
CREATE FUNCTION travels(style text, zone text, at timestamptz, intervals text, digits text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	day date := at::date;
	span interval := interval '-1 year +2 days -03:04:05.678901';
	back interval := interval '-1 day -00:00:00.000001';
	n float8 := 0.1::float8 + 0.2;
	r record;
BEGIN
	PERFORM set_config('DateStyle', style, true), set_config('TimeZone', zone, true),
		set_config('IntervalStyle', intervals, true), set_config('extra_float_digits', digits, true);
	SELECT INTO r * FROM concord.query_on('b', 'SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9',
		at, day, at::timestamp, ARRAY[at, NULL], tstzrange(at, at + interval '1 day'), ROW(at, n)::stamped, span, back, ARRAY[n])
		AS t(a timestamptz, b date, c timestamp, d timestamptz[], e tstzrange, f stamped, g interval, h interval, i float8[]);
	IF ROW(r.a, r.b, r.c, r.d, r.e, r.f, r.g::text, r.h::text, r.i)
		IS DISTINCT FROM ROW(at, day, at::timestamp, ARRAY[at, NULL], tstzrange(at, at + interval '1 day'), ROW(at, n)::stamped, span::text, back::text, ARRAY[n])
	THEN RETURN NEXT 'SELECT: ' || r; END IF;
	SELECT INTO r * FROM concord.query_on('b', 'SELECT $1::text, $2::text, to_char($1, ''TZ''), current_setting(''DateStyle'')', at, day)
		AS t(a text, b text, c text, d text);
	IF r IS DISTINCT FROM ROW(at::text, day::text, to_char(at, 'TZ'), current_setting('DateStyle'))
	THEN RETURN NEXT 'text: ' || r; END IF;
	SELECT INTO r * FROM concord.query_on('b', 'INSERT INTO moment VALUES ($1, $2) RETURNING at, day, at::text', at, day)
		AS t(a timestamptz, b date, c text);
	IF r IS DISTINCT FROM ROW(at, day, at::text) THEN RETURN NEXT 'RETURNING: ' || r; END IF;
	SELECT INTO r * FROM concord.query_on('b', 'DELETE FROM seen RETURNING *') AS t(a text, b text);
	IF r IS DISTINCT FROM ROW(current_setting('DateStyle'), at::text) THEN RETURN NEXT 'trigger: ' || r; END IF;
	BEGIN
		PERFORM concord.execute_on('b', 'DO $d$ BEGIN RAISE ''%'', timestamptz ''2026-02-03 04:05:06+00''; END $d$');
	EXCEPTION WHEN raise_exception THEN
		IF SQLERRM <> (timestamptz '2026-02-03 04:05:06+00')::text THEN RETURN NEXT 'DO: ' || SQLERRM; END IF;
	END;
	SELECT INTO r * FROM concord.query_on('b', 'SHOW DateStyle') AS t(a text);
	IF r IS DISTINCT FROM ROW(current_setting('DateStyle')) THEN RETURN NEXT 'SHOW: ' || r; END IF;
	SELECT INTO r * FROM concord.query_on('b', 'SELECT caught(), $1', at) AS t(a text, b timestamptz);
	IF r IS DISTINCT FROM ROW(timestamptz '2026-02-03 04:05:06+00' || ' ' || timestamptz '2026-02-03 04:05:06+00', at)
	THEN RETURN NEXT 'caught: ' || r; END IF;
	IF style = 'German, MDY' OR at > '9999-12-31' THEN
		RETURN;					-- it does not read everywhere what it writes
	END IF;
	SELECT INTO r * FROM concord.query_on('b', format('SELECT timestamptz %L, date %L, $1::date', at::timestamp, day), day::text)
		AS t(a timestamptz, b date, c date);
	IF r IS DISTINCT FROM ROW(at::timestamp::timestamptz, day, day) THEN RETURN NEXT 'literals: ' || r; END IF;
END $$;

SELECT style, zone, at AT TIME ZONE 'UTC' AS utc, wrong
FROM unnest(ARRAY['ISO, MDY', 'German, DMY', 'German, MDY', 'SQL, DMY', 'SQL, MDY', 'Postgres, DMY', 'Postgres, MDY']) AS style,
	unnest(ARRAY['UTC', 'Asia/Kolkata', 'Europe/Moscow', 'Asia/Shanghai', 'America/New_York', 'Europe/Dublin']) AS zone,
	unnest(ARRAY[timestamptz '2026-02-03 04:05:06.789+00', '2012-11-04 05:30:00+00', '2012-11-04 06:30:00+00',
		'1890-01-02 03:04:05+00', '0044-03-15 12:00:00+00 BC', '12026-07-08 09:10:11+00', 'infinity']) AS at,
	travels(style, zone, at, 'postgres', '1') AS wrong;
SELECT intervals, digits, wrong
FROM unnest(ARRAY['postgres', 'postgres_verbose', 'sql_standard', 'iso_8601']) AS intervals,
	unnest(ARRAY['-15', '0', '3']) AS digits,
	travels('German', 'Asia/Kolkata', '2026-02-03 04:05:06.789+00', intervals, digits) AS wrong;

-- after errors, and as the statement there has set it
SET DateStyle = 'German';
SET TimeZone = 'Asia/Kolkata';
SELECT * FROM concord.query_on('b', 'SELECT failing()') AS t(x int);
SELECT * FROM concord.query_on('b', 'SELECT $1', timestamptz '2026-02-03 04:05:06+05:30') AS t(x timestamptz);
BEGIN;
SELECT * FROM concord.query_on('b', $$SELECT set_config('DateStyle', 'SQL, DMY', false)$$) AS t(x text);
SELECT * FROM concord.query_on('b', 'SELECT $1, $1::text', timestamptz '2026-02-03 04:05:06+05:30') AS t(x timestamptz, y text);
ROLLBACK;
SELECT * FROM concord.query_on('b', 'SELECT $1, $1::text', timestamptz '2026-02-03 04:05:06+05:30') AS t(x timestamptz, y text);
SET DateStyle = 'ISO, DMY';
SELECT * FROM concord.query_on('b', 'SELECT $1, $1::text', timestamptz '2026-02-03 04:05:06+05:30') AS t(x timestamptz, y text);

SELECT concord.remove_node('b');
SELECT concord.remove_node('a', force => true);
\c contrib_regression
DROP DATABASE regress_style_a;
DROP DATABASE regress_style_b;
