/*
 * sim.h
 *		The deterministic simulations of src/core's registers, and of the lease locks on them: what
 *		their files share.
 *
 * sim.c		options, seeds, TAP
 * cluster.c	registers: clients, the change of the set, faults
 * locks.c		lease locks: nodes with clocks, leases and sessions, faults
 * acceptors.c	acceptors with a memory and a disk
 * network.c	chance, the queue of events, the network
 * history.c	was what the clients saw linearizable?
 */
#ifndef CONCORD_TEST_SIM_H
#define CONCORD_TEST_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/register.h"

#ifndef BUG
#define BUG 0					/* seeded, see check.sh */
#endif

#ifndef SIM_REGISTERS
#define SIM_REGISTERS 3
#endif
#define SIM_OPERATIONS 256		/* of a run, at most */
#define SIM_ORIGINS 24			/* of an operation, at most: it is given up before there are more */
#define SIM_FOREVER INT64_MAX

/* An operation as its client saw it */
typedef struct SimOperation
{
	int			client;
	int			reg;
	ConcordOperation op;
	int64_t		expected;
	int64_t		start;
	int64_t		end;			/* SIM_FOREVER: its client does not know that it has ended */
	ConcordResult result;
	ConcordValue value;
	ConcordBallot origins[SIM_ORIGINS]; /* under which its change was proposed */
	int			norigins;
} SimOperation;

/* What is wrong with the history of a register, or NULL */
extern const char *sim_history_check(const SimOperation *ops, int nops, int reg);

/* The bytes of a value are never looked at: the reference itself tells whose they are. */
#define SIM_DATA(number) ((const void *) ((uintptr_t) (number) + 1))

typedef struct SimCounts
{
	uint64_t	events;
	uint64_t	operations;
	uint64_t	results[CONCORD_RESULT_UNKNOWN + 1];
	uint64_t	one_round;		/* changes in one round */
	uint64_t	one_round_reads;
	uint64_t	collected;
	uint64_t	crashes;
	uint64_t	restored;
	uint64_t	settled;
	uint64_t	abandoned;
	uint64_t	recreated;		/* values after a deletion */

	/* of locks.c */
	uint64_t	held;			/* locks that were held */
	uint64_t	waited;			/* after waiting */
	uint64_t	shared;
	uint64_t	upgraded;
	uint64_t	given_up;
	uint64_t	unsure;			/* released without knowing whether they were there */
	uint64_t	late;			/* found to be holders when their lease was over */
	uint64_t	leases;			/* begun */
	uint64_t	lapsed;			/* and renewed all the same */
	uint64_t	ended;			/* by others */
	uint64_t	replaced;		/* by another server of the node, after watching it */
	uint64_t	dropped;		/* requests */
	uint64_t	stale;			/* refused for their fence */
	uint64_t	accepted;
} SimCounts;

/* Each program's own: its name, what it has met, whether that is everything that it should have */
extern const char *const sim_name;
extern void sim_show_counts(const SimCounts *c);
extern bool sim_has_met_everything(const SimCounts *c, uint64_t seeds);

#define SIM_NO_PROGRESS "no progress after everything has healed"

/* Runs one seed; returns what is wrong, or NULL.  Adds to *counts. */
extern const char *sim_run(uint64_t seed, bool verbose, SimCounts *counts);

/* Pseudo-random numbers, the same on every machine for one seed */
static inline uint64_t
sim_random(uint64_t *state)
{
	/* splitmix64 */
	uint64_t	z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

#endif							/* CONCORD_TEST_SIM_H */
