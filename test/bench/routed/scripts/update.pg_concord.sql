SELECT concord.execute(:aid, 'UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $1', :aid);
