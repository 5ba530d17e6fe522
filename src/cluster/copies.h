/*
 * copies.h
 *		What this server knows of nodes and replicas, for whoever chooses which copy to read.
 */
#ifndef CONCORD_CLUSTER_COPIES_H
#define CONCORD_CLUSTER_COPIES_H

#include <time.h>

#include "base/shmem.h"

/*
 * The clock of fresh_at_us, in microseconds.  It runs on while the machine sleeps (elsewhere than
 * on Linux it may not): else what is read would be taken for younger than it is.
 */
static inline int64
concord_copy_clock_us(void)
{
	struct timespec now;

#ifdef CLOCK_BOOTTIME
	clock_gettime(CLOCK_BOOTTIME, &now);
#else
	clock_gettime(CLOCK_MONOTONIC, &now);
#endif
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* As ConcordPeer says of each. */
typedef struct ConcordCopyHealth
{
	ConcordHealth health;
	int32		latency_us;		/* -1 = none yet */
	TimestampTz last_seen;		/* 0 = never */
	bool		servable;
	TimeLineID	timeline;		/* 0 = not known, nor is lsn */
	XLogRecPtr	lsn;
	int64		fresh_at_us;
	uint64		incarnation;
} ConcordCopyHealth;

/*
 * What the worker last heard of a node (its id) or a replica (minus its id).  Takes one lock,
 * shared, for an instant; needs no transaction.  False, with health UNKNOWN and nothing servable,
 * when there is nothing: no worker (a standby), not asked yet, or the node is this one itself.
 *
 * A replica shows what was committed on its node before fresh_at_us, that is, what is read of it
 * is not older than concord_copy_clock_us() - fresh_at_us; as long as it is still the same server:
 * one that was restarted may have applied less for a while, and is of another incarnation.
 */
extern bool concord_copy_health(int copy, ConcordCopyHealth *health);

/*
 * The end of this primary's WAL and its timeline: the end of the last record that was given a
 * place in it, flushed or not.  Whatever has been committed here, also with synchronous_commit
 * off, lies before it; a flushed position would leave such commits out.  What is not flushed yet is
 * asked to be soon, without waiting for it, so that standbys get there though nothing else is
 * written.
 */
extern XLogRecPtr concord_wal_end(TimeLineID *timeline);

#endif							/* CONCORD_CLUSTER_COPIES_H */
