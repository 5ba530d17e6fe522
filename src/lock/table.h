/*
 * table.h
 *		Lease locks of this server's sessions: what sessions and registrar share.  Private to this
 *		room.
 *
 * WHAT: an entry for each request of a session: asked for, waited for, held, lost, being given
 * back.  Sessions make them and read how they stand (holder.c); the registrar carries them into
 * the lock's register (clerk.c), keeps the node's lease (keeper.c), and says in them what has
 * become of them.
 *
 * STATES of an entry (who takes the edge)
 *		FREE --session: concord_lease_ask--> ASKED
 *		ASKED --registrar: in the queue--> WAITING
 *		ASKED, WAITING --registrar: a holder, and the lease is valid--> HELD
 *		ASKED --registrar: busy, full, refused--> REFUSED
 *		HELD --registrar: the lease ran out, or was ended--> LOST
 *		WAITING --registrar: the lease was ended--> ASKED
 *		ASKED, WAITING, HELD, LOST, REFUSED --session: unlock, gives up, exits--> LEAVING
 *		LEAVING --registrar: it is not in the register, and cannot come any more--> FREE
 *
 * INVARIANTS
 * E1 An entry that is not FREE may be in the lock's register under its serial, or come to be: only
 *	  the registrar frees it, when it cannot (L1 of core/lock.h).  So nothing that a session leaves
 *	  behind, however it ends, is forgotten while the server lives; and when that dies, its
 *	  lease is not renewed.
 * E2 HELD was written after the registrar had found the node's lease valid (L11).  Whoever does
 *	  something under the lock looks at the lease's end in the header once more
 *	  (concord_lease_left_us): that is never later than what the lease rule allows.
 * E3 lock (a leaf) protects everything here; nothing is waited for while it is held.
 */
#ifndef CONCORD_LOCK_TABLE_H
#define CONCORD_LOCK_TABLE_H

#include "postgres.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "core/lock.h"
#include "lib/ilist.h"
#include "quorum/quorum.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#define CONCORD_BLOCKERS 4		/* shown of each waiter */
#define CONCORD_UUID_TEXT 37
#define CONCORD_NEWS 64			/* of other nodes, kept for a registrar */
#define CONCORD_NEWS_BYTES CONCORD_LOCK_SIZE(16)

typedef enum ConcordHoldingState
{
	CONCORD_HOLDING_FREE = 0,
	CONCORD_HOLDING_ASKED,
	CONCORD_HOLDING_WAITING,
	CONCORD_HOLDING_HELD,
	CONCORD_HOLDING_LOST,
	CONCORD_HOLDING_REFUSED,
	CONCORD_HOLDING_LEAVING
} ConcordHoldingState;

typedef struct ConcordBlocker
{
	int32		node;
	int32		pid;			/* there */
} ConcordBlocker;

typedef struct ConcordHolding
{
	ConcordHoldingState state;
	Oid			dboid;
	int			pid;			/* of the session; 0: it does not care any more */
	int			procno;
	Oid			role;
	char		application[NAMEDATALEN];
	uint64		serial;			/* never given twice in a start of the server */
	ConcordLockMode mode;
	bool		upgrade;		/* HELD: the session wants it exclusive */
	bool		may_wait;
	ConcordLockResult result;	/* REFUSED, or of the upgrade */
	bool		waited;			/* has been WAITING */
	bool		deadlock;		/* WAITING: chosen as a deadlock's victim */
	int			on_loss;		/* a ConcordOnLoss */
	int64		fence;			/* HELD, LOST */
	uint64		lease;			/* registrar: under which it was asked for */
	int64		hold_us;		/* longest it may be held; 0 = no limit */
	int64		until_us;		/* HELD: this is when; 0 = never */
	int64		asked_us;		/* ASKED: since when, concord_copy_clock_us() */
	TimestampTz asked_at;
	TimestampTz held_at;
	int			nblockers;		/* WAITING: who is in its way, as last read */
	ConcordBlocker blockers[CONCORD_BLOCKERS];
	bool		queued;			/* in its database's queue */
	dlist_node	node;			/* of that queue, or of the free ones */
	int			name_len;
	char		name[CONCORD_NAME_MAX + 1];
} ConcordHolding;

/* What another node said of a lock, for the registrar */
typedef struct ConcordLockNews
{
	int64		version;		/* 0: only that there is something new */
	int			name_len;
	int			len;
	char		name[CONCORD_NAME_MAX];
	char		value[CONCORD_NEWS_BYTES];
} ConcordLockNews;

typedef struct ConcordHoldingDatabase
{
	Oid			dboid;			/* 0 = free */
	int			node;			/* this one's id in that cluster, whose the lease is */
	char		cluster[CONCORD_UUID_TEXT];
	uint64		lease;			/* the node's; 0 = none */
	int64		lease_from_us;	/* concord_copy_clock_us() */
	int64		lease_until_us;
	dlist_head	queue;			/* entries that the registrar is to look at */
	int			nnews;
	bool		news_lost;		/* there was no room: read all again */
	ConcordLockNews news[CONCORD_NEWS];
} ConcordHoldingDatabase;

typedef struct ConcordHoldingTable
{
	LWLock	   *lock;
	uint64		last_serial;
	int			size;
	dlist_head	free;
	ConcordHoldingDatabase databases[CONCORD_MAX_DATABASES];
	ConcordHolding entries[FLEXIBLE_ARRAY_MEMBER];
} ConcordHoldingTable;

/* NULL without the preload */
extern ConcordHoldingTable *ConcordHoldings;

/* The lock is held.  NULL if there is none, and with create only if there is no room. */
extern ConcordHoldingDatabase *concord_holding_database(Oid dboid, bool create);

/* Gives the entry to its database's registrar to look at; the lock is held exclusively. */
extern void concord_holding_queue(ConcordHolding *entry);

/* Tells the session that it has lost the lock, as on_loss says; the lock is held exclusively. */
extern void concord_holding_lose(ConcordHolding *entry);

#endif							/* CONCORD_LOCK_TABLE_H */
