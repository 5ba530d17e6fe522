--
-- What every object of the extension keeps to, whatever it is for.
--
\set VERBOSITY terse
CREATE EXTENSION pg_concord;

CREATE TEMP VIEW members AS
	SELECT classid, objid, objsubid
	  FROM pg_depend
	 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_concord');
CREATE TEMP VIEW functions AS
	SELECT p.*, p.oid::regprocedure AS signature, l.lanname AS language
	  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	 WHERE (SELECT count(*) FROM members
			 WHERE classid = 'pg_proc'::regclass AND objid = p.oid) > 0;
CREATE TEMP VIEW relations AS
	SELECT c.* FROM pg_class c
	 WHERE (SELECT count(*) FROM members
			 WHERE classid = 'pg_class'::regclass AND objid = c.oid) > 0;

-- everything has a comment (the types that come with a table or view have none of their own)
SELECT pg_describe_object(classid, objid, objsubid) AS no_comment
  FROM members
 WHERE (SELECT count(*) FROM pg_type
		 WHERE members.classid = 'pg_type'::regclass AND oid = members.objid
		   AND (typcategory = 'A' OR typrelid IN (SELECT oid FROM relations))) = 0
   AND coalesce(obj_description(objid, classid::regclass::name), '') = ''
 ORDER BY 1;

-- everything lies in the schema concord
SELECT pg_describe_object(classid, objid, objsubid) AS elsewhere
  FROM members
 WHERE (pg_identify_object(classid, objid, objsubid)).schema <> 'concord'
 ORDER BY 1;

-- SQL and PL/pgSQL pin search_path; C qualifies its names and has no SET clause, which would be slow
SELECT signature AS search_path_not_pinned
  FROM functions
 WHERE language IN ('sql', 'plpgsql') AND prosqlbody IS NULL
   AND NOT coalesce(proconfig, '{}') && '{"search_path=pg_catalog, pg_temp","search_path=pg_catalog, concord, pg_temp"}'
 ORDER BY signature::text COLLATE "C";
SELECT signature AS set_clause, proconfig
  FROM functions WHERE language = 'c' AND proconfig IS NOT NULL
 ORDER BY signature::text COLLATE "C";

-- nothing runs with its owner's rights unless it is meant to
SELECT signature AS security_definer
  FROM functions WHERE prosecdef
 ORDER BY signature::text COLLATE "C";

-- what reaches other nodes does not run in a parallel worker
SELECT signature AS parallel
  FROM functions
 WHERE proname ~ '^(query|execute)' AND proparallel <> 'u'
 ORDER BY signature::text COLLATE "C";

-- only what is a pure function of its arguments may be in an index
SELECT signature AS immutable, proparallel
  FROM functions WHERE provolatile = 'i'
 ORDER BY signature::text COLLATE "C";

-- what everybody may call and read
SELECT signature AS for_everybody
  FROM functions
 WHERE (SELECT count(*) FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
		 WHERE grantee = 0 AND privilege_type = 'EXECUTE') > 0
 ORDER BY signature::text COLLATE "C";
SELECT relname AS for_everybody, privilege_type AS may
  FROM relations, aclexplode(relacl)
 WHERE grantee = 0
 ORDER BY 1, 2;

-- what pg_dump takes along
SELECT oid::regclass AS dumped
  FROM relations
 WHERE oid = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'pg_concord')::oid[])
 ORDER BY 1;

DROP EXTENSION pg_concord;
