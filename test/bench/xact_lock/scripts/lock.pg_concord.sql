BEGIN;
SELECT concord.xact_lock(:lock::text);
COMMIT;
