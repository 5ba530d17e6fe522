/*
 * history.c
 *		Was what the clients saw of a register linearizable?
 *
 * Only what clients see is looked at: when they began and ended an operation, its result, and the
 * version and origin of the value that came with it.  As every change has a version, its place in
 * the order is known, and there is nothing to search for:
 *
 * 1. a version has one value, by one operation that has not failed; an operation has one version;
 * 2. a change replaced what it expected, a mismatch is one;
 * 3. what ended before something else began is not behind it in the order of versions.
 *
 * An operation with an unknown outcome has happened if somebody saw its value, at any time after
 * its start.  Nothing at all (NONE) can be read between a deletion and the next creation, and
 * before the first one; of several such places the first one possible is taken, which binds others
 * the least.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct State
{
	int64_t		version;
	int			writer;			/* index of the operation */
} State;

static State states[SIM_OPERATIONS];
static int	nstates;
static int64_t position[SIM_OPERATIONS];
static char message[200];

#define WRONG(...) (snprintf(message, sizeof(message), __VA_ARGS__), message)

static bool
changes(const SimOperation *o)
{
	return o->op == CONCORD_WRITE || o->op == CONCORD_DELETE;
}

static bool
answered(const SimOperation *o)
{
	return o->op != CONCORD_COLLECT &&
		(o->result == CONCORD_RESULT_OK || o->result == CONCORD_RESULT_MISMATCH);
}

static int
find_writer(const SimOperation *ops, int nops, int reg, const ConcordBallot *origin)
{
	for (int i = 0; i < nops; i++)
		if (ops[i].reg == reg)
			for (int j = 0; j < ops[i].norigins; j++)
				if (concord_ballot_compare(&ops[i].origins[j], origin) == 0)
					return i;
	return -1;
}

/* Notes the value that operation number i was told. */
static const char *
note(const SimOperation *ops, int nops, int reg, int i)
{
	const ConcordValue *v = &ops[i].value;
	int			writer = find_writer(ops, nops, reg, &v->origin);

	if (writer < 0)
		return WRONG("operation %d was told version %ld, which nobody wrote", i, (long) v->version);
	if (ops[writer].result == CONCORD_RESULT_FAILED ||
		ops[writer].result == CONCORD_RESULT_MISMATCH)
		return WRONG("operation %d was told version %ld of operation %d, which has changed nothing",
					 i, (long) v->version, writer);
	if ((ops[writer].op == CONCORD_DELETE) != (v->kind == CONCORD_VALUE_TOMBSTONE) ||
		(ops[writer].op == CONCORD_WRITE && v->data != SIM_DATA(writer)))
		return WRONG("operation %d was told another value than operation %d wrote", i, writer);
	if (ops[i].result == CONCORD_RESULT_OK && changes(&ops[i]) && writer != i)
		return WRONG("operation %d took the change of operation %d for its own", i, writer);

	for (int s = 0; s < nstates; s++)
	{
		if (states[s].version == v->version && states[s].writer == writer)
			return NULL;
		if (states[s].version == v->version)
			return WRONG("version %ld is of operation %d and of %d", (long) v->version, writer,
						 states[s].writer);
		if (states[s].writer == writer)
			return WRONG("operation %d has the versions %ld and %ld", writer,
						 (long) states[s].version, (long) v->version);
	}
	states[nstates].version = v->version;
	states[nstates++].writer = writer;
	return NULL;
}

static int
by_version(const void *a, const void *b)
{
	const State *x = a;
	const State *y = b;

	return x->version < y->version ? -1 : x->version > y->version;
}

static bool
is_set(const SimOperation *ops, const State *state)
{
	return ops[state->writer].op == CONCORD_WRITE;
}

/* May there be a deletion that nobody has seen, begun before that time? */
static bool
hidden_deletion(const SimOperation *ops, int nops, int reg, int64_t before)
{
	for (int i = 0; i < nops; i++)
		if (ops[i].reg == reg && ops[i].op == CONCORD_DELETE && ops[i].start <= before &&
			ops[i].norigins > 0 &&
			(ops[i].result == CONCORD_RESULT_UNKNOWN || ops[i].result == CONCORD_RESULT_OPEN))
		{
			bool		seen = false;

			for (int s = 0; s < nstates; s++)
				seen = seen || states[s].writer == i;
			if (!seen)
				return true;
		}
	return false;
}

/* Rule 2 */
static const char *
check_expected(const SimOperation *ops, int nops, int reg, int i)
{
	const SimOperation *o = &ops[i];
	bool		exists = o->value.kind == CONCORD_VALUE_SET;
	int64_t		version = exists ? o->value.version : CONCORD_EXPECT_NONE;
	const State *before = NULL;

	if (!changes(o))
		return NULL;
	if (o->result == CONCORD_RESULT_MISMATCH)
	{
		if ((o->op == CONCORD_DELETE && !exists) ||
			(o->expected != CONCORD_EXPECT_ANY && o->expected != version))
			return NULL;
		return WRONG("operation %d found what it expected, and was refused", i);
	}

	version = o->value.version;
	for (int s = 0; s < nstates && states[s].version < version; s++)
		before = &states[s];
	if (o->expected > 0 && version != o->expected + 1)
		return WRONG("operation %d expected %ld and wrote %ld", i, (long) o->expected,
					 (long) version);
	if ((o->expected > 0 || o->op == CONCORD_DELETE) &&
		(before != NULL && before->version == version - 1 && !is_set(ops, before)))
		return WRONG("operation %d changed version %ld, which was deleted", i, (long) version - 1);
	if (o->expected == CONCORD_EXPECT_NONE && before != NULL && is_set(ops, before) &&
		!hidden_deletion(ops, nops, reg, o->end))
		return WRONG("operation %d created version %ld over version %ld", i, (long) version,
					 (long) before->version);
	return NULL;
}

/* The first place where nothing could be read, not before a version; -1 if there is none */
static int64_t
place_of_nothing(const SimOperation *ops, int64_t version)
{
	int64_t		begin = 0;

	for (int s = 0; s < nstates; s++)
	{
		if (begin >= 0 && states[s].version > version)
			return begin;
		begin = is_set(ops, &states[s]) ? -1 : states[s].version;
	}
	return begin;
}

/* Rule 3, for an operation; those that started before have their positions already. */
static const char *
check_order(const SimOperation *ops, int nops, int reg, int i)
{
	int64_t		last = 0;
	int			of = -1;

	for (int j = 0; j < nops; j++)
		if (ops[j].reg == reg && answered(&ops[j]) && ops[j].end < ops[i].start &&
			position[j] > last)
		{
			last = position[j];
			of = j;
		}

	position[i] = ops[i].value.version;
	if (ops[i].value.kind == CONCORD_VALUE_NONE)
	{
		position[i] = place_of_nothing(ops, last);
		if ((position[i] < 0 || position[i] > last) &&
			hidden_deletion(ops, nops, reg, ops[i].end))
			position[i] = last;
		if (position[i] < 0)
			return WRONG("operation %d found nothing after operation %d found version %ld", i, of,
						 (long) last);
	}
	/* its own version it has to itself (rule 1), so equality need not be looked at for a change */
	if (position[i] < last)
		return WRONG("operation %d found version %ld after operation %d found version %ld", i,
					 (long) position[i], of, (long) last);
	return NULL;
}

/* Nobody sees a change before it has begun. */
static const char *
check_future(const SimOperation *ops, int reg, int nops)
{
	for (int i = 0; i < nops; i++)
		if (ops[i].reg == reg && answered(&ops[i]))
			for (int s = 0; s < nstates; s++)
				if (states[s].version <= position[i] && ops[states[s].writer].start > ops[i].end)
					return WRONG("operation %d found version %ld before operation %d began", i,
								 (long) position[i], states[s].writer);
	return NULL;
}

const char *
sim_history_check(const SimOperation *ops, int nops, int reg)
{
	const char *wrong = NULL;

	nstates = 0;
	for (int i = 0; i < nops && wrong == NULL; i++)
		if (ops[i].reg == reg && answered(&ops[i]) && ops[i].value.kind != CONCORD_VALUE_NONE)
			wrong = note(ops, nops, reg, i);
	qsort(states, (size_t) nstates, sizeof(State), by_version);

	for (int i = 0; i < nops && wrong == NULL; i++)
		if (ops[i].reg == reg && answered(&ops[i]))
			wrong = check_expected(ops, nops, reg, i);
	/* operations are numbered in the order in which they began */
	for (int i = 0; i < nops && wrong == NULL; i++)
		if (ops[i].reg == reg && answered(&ops[i]))
			wrong = check_order(ops, nops, reg, i);
	if (wrong == NULL)
		wrong = check_future(ops, reg, nops);
	return wrong;
}
