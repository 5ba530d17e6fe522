/*
 * sim.c
 *		Runs the simulation of registers for many seeds.
 *
 *		sim [-v] [-f] [seeds [first]]
 *
 * CONCORD_SEED=n runs one seed alone, -v with a trace.  -f expects a mistake to be found: it stops
 * at the first seed that does, and fails if none does.  Prints TAP, then "N passed, N failed".
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t
number(const char *text)
{
	char	   *end;
	uint64_t	value = strtoull(text, &end, 10);

	if (end == text || *end != '\0')
	{
		fprintf(stderr, "\"%s\" is not a number\n", text);
		exit(2);
	}
	return value;
}

static void
print_counts(const SimCounts *c)
{
	printf("# %" PRIu64 " events, %" PRIu64 " operations: %" PRIu64 " ok, %" PRIu64
		   " mismatch, %" PRIu64 " failed, %" PRIu64 " unknown\n", c->events, c->operations,
		   c->results[CONCORD_RESULT_OK], c->results[CONCORD_RESULT_MISMATCH],
		   c->results[CONCORD_RESULT_FAILED], c->results[CONCORD_RESULT_UNKNOWN]);
	printf("# in one round: %" PRIu64 " changes, %" PRIu64 " reads; %" PRIu64 " collected, %" PRIu64
		   " created anew; %" PRIu64 " crashes, %" PRIu64 " restored; sets: %" PRIu64
		   " settled, %" PRIu64 " abandoned\n", c->one_round, c->one_round_reads, c->collected,
		   c->recreated, c->crashes, c->restored, c->settled, c->abandoned);
}

/* What the runs must have met, so that they do not pass by doing nothing */
static bool
has_met_everything(const SimCounts *c, uint64_t seeds)
{
	return c->results[CONCORD_RESULT_OK] > seeds * 5 && c->results[CONCORD_RESULT_UNKNOWN] > 0 &&
		c->results[CONCORD_RESULT_FAILED] > 0 && c->results[CONCORD_RESULT_MISMATCH] > 0 &&
		c->one_round > 0 && c->one_round_reads > 0 && c->collected > 0 && c->recreated > 0 &&
		c->crashes > 0 && c->restored > 0 && c->settled > 0 && c->abandoned > 0;
}

int
main(int argc, char **argv)
{
	const char *only = getenv("CONCORD_SEED");
	bool		verbose = false;
	bool		expect = false;
	uint64_t	seeds = 10000;
	uint64_t	first = 1;
	int			wrongs = 0;
	bool		good;
	SimCounts	counts;

	memset(&counts, 0, sizeof(counts));
	for (argc--, argv++; argc > 0 && argv[0][0] == '-'; argc--, argv++)
	{
		verbose = verbose || strcmp(argv[0], "-v") == 0;
		expect = expect || strcmp(argv[0], "-f") == 0;
	}
	if (argc > 0)
		seeds = number(argv[0]);
	if (argc > 1)
		first = number(argv[1]);
	if (only != NULL)
	{
		first = number(only);
		seeds = 1;
	}

	for (uint64_t seed = first; seed < first + seeds && wrongs < (expect ? 1 : 5); seed++)
	{
		const char *wrong = sim_run(seed, verbose, &counts);

		/* a mistake must be found by what it does to the registers */
		if (wrong == NULL || (expect && strcmp(wrong, SIM_NO_PROGRESS) == 0))
			continue;
		wrongs++;
		printf("# CONCORD_SEED=%" PRIu64 ": %s\n", seed, wrong);
		if (expect)
			printf("ok - found after %" PRIu64 " seeds: %s\n", seed - first + 1, wrong);
	}
	if (expect)
	{
		if (wrongs == 0)
			printf("not ok - not found in %" PRIu64 " seeds\n", seeds);
		return wrongs == 0;
	}
	print_counts(&counts);
	good = wrongs == 0;
	printf("%s 1 - registers: seeds %" PRIu64 " to %" PRIu64 "\n", good ? "ok" : "not ok", first,
		   first + seeds - 1);
	if (seeds > 1)
	{
		bool		met = has_met_everything(&counts, seeds);

		printf("%s 2 - they have met everything\n", met ? "ok" : "not ok");
		good = good && met;
	}
	return good ? 0 : 1;
}
