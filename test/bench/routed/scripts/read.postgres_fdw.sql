SELECT abalance FROM fdw_way.accounts WHERE aid = :aid;
