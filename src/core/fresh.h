/*
 * fresh.h
 *		How old is what a copy shows?  Judged from positions in the WAL and one clock.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation.
 *
 * A sample says: a question sent at this time was answered by the node with this end of its WAL.
 * What was committed on the node before the question was sent lies before that end.  So a copy that
 * has applied the position shows everything that was committed before the sample was sent, and at
 * any later moment is at most as old as the sample.  Both moments are of one clock, that of who
 * asks: no other is looked at.
 *
 * INVARIANTS
 * F1 Samples ascend strictly in time and in position, and are of one timeline: positions of
 *	  another say nothing.
 * F2 Forgetting a sample makes an answer older than need be, never newer than true.
 */
#ifndef CONCORD_CORE_FRESH_H
#define CONCORD_CORE_FRESH_H

#include <stdint.h>

#define CONCORD_SAMPLES 128

typedef struct ConcordSample
{
	int64_t		sent_us;		/* > 0 */
	uint64_t	lsn;
} ConcordSample;

/* All zeroes: no samples. */
typedef struct ConcordSamples
{
	uint32_t	timeline;
	int			n;
	ConcordSample items[CONCORD_SAMPLES];	/* oldest first */
} ConcordSamples;

/*
 * Adds a sample.  One that was sent before the last one is left out; another timeline ends what
 * was known of the former.  When there is no more room, one is forgotten so that those which remain
 * are the denser the younger they are: they reach back for as long as samples were taken.
 */
extern void concord_samples_add(ConcordSamples *samples, uint32_t timeline, uint64_t lsn,
								int64_t sent_us);

/* When the newest sample was sent that a copy which applied this position has; 0 if it has none. */
extern int64_t concord_samples_reached(const ConcordSamples *samples, uint32_t timeline,
									   uint64_t lsn);

#endif							/* CONCORD_CORE_FRESH_H */
