BEGIN;
UPDATE fdw_transfer.first SET abalance = abalance + 1 WHERE aid = :first;
UPDATE fdw_transfer.second SET abalance = abalance - 1 WHERE aid = :second;
COMMIT;
