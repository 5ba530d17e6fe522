-- What the clients write and read. Variables: none.
CREATE TABLE session_counter (v bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO session_counter VALUES (0);
CREATE TABLE session_rows (id int PRIMARY KEY, v bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO session_rows SELECT i, 0 FROM generate_series(0, 999) AS i;
-- many small commits, for a standby to replay
CREATE PROCEDURE session_commits(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..n LOOP
		UPDATE session_rows SET v = v + 1 WHERE id = i % 1000;
		COMMIT;
	END LOOP;
END $$;
VACUUM session_counter, session_rows;
