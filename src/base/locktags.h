/*
 * locktags.h
 *		Which locks of PostgreSQL's lock manager are pg_concord's.
 *
 * They are advisory locks that PostgreSQL's SQL functions cannot name: those have 1 or 2 in the
 * tag's last field, which pg_locks shows as objsubid.  So an application's own advisory locks are
 * never in the way of ours, nor ours in theirs.  Other extensions use small numbers there.
 *
 * All are locks of this server alone and of one database, and are known to the lock manager like
 * any other: they wait in its queues, are seen by its deadlock detector and by ours, are held
 * through PREPARE TRANSACTION, restarts and promotions, and are released by ROLLBACK TO SAVEPOINT.
 *
 * ORDER: a slot, then what lies in it.
 */
#ifndef CONCORD_LOCKTAGS_H
#define CONCORD_LOCKTAGS_H

#include "miscadmin.h"
#include "storage/lock.h"

#define CONCORD_LOCKTAG_SLOT	20547	/* key: the slot (shard/shard.h) */
#define CONCORD_LOCKTAG_XACT	20548	/* key: hash of a transaction lock's name (lock/xact.c) */
#define CONCORD_LOCKTAG_FENCE	20549	/* key: hash of a mark's name (lock/fence.c) */
#define CONCORD_LOCKTAG_REGISTER	20550	/* key: hash of a register's name, 0: the acceptor */

static inline void
concord_locktag(LOCKTAG *tag, int kind, uint64 key)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, kind);
}

#endif							/* CONCORD_LOCKTAGS_H */
