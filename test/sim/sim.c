/*
 * sim.c
 *		Runs a simulation for many seeds.
 *
 *		sim [-v] [-f] [seeds [first]], or locks, the same
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

		/* a mistake must be found by what it does */
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
	sim_show_counts(&counts);
	good = wrongs == 0;
	printf("%s 1 - %s: seeds %" PRIu64 " to %" PRIu64 "\n", good ? "ok" : "not ok", sim_name,
		   first, first + seeds - 1);
	if (seeds > 1)
	{
		bool		met = sim_has_met_everything(&counts, seeds);

		printf("%s 2 - they have met everything\n", met ? "ok" : "not ok");
		good = good && met;
	}
	return good ? 0 : 1;
}
