UPDATE fdw_way.accounts SET abalance = abalance + 1 WHERE aid = :aid;
