SELECT * FROM concord.query(:aid, 'SELECT abalance FROM pgbench_accounts WHERE aid = $1', :aid) AS t (abalance int);
