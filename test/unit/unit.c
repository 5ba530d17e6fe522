/*
 * unit.c
 *		Runs the unit tests of core/: one line per test (TAP), then "N passed, N failed".
 *
 * Exits with 1 if a test failed.  CONCORD_SEED repeats the random tests of an earlier run.
 */
#include "unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define FAILURES_SHOWN 5		/* per test */

static int	passed;
static int	failed;
static int	failures;			/* of the running test */
static uint64_t seed;

void
unit_fail(const char *file, int line, const char *condition, const char *format,...)
{
	va_list		args;

	if (++failures > FAILURES_SHOWN)
		return;
	printf("# %s:%d: %s:", file, line, condition);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

void
unit_run(const char *name, void (*test) (void))
{
	failures = 0;
	test();
	if (failures == 0)
		passed++;
	else
		failed++;
	printf("%s %d - %s\n", failures == 0 ? "ok" : "not ok", passed + failed, name);
	fflush(stdout);
}

bool
unit_failed(void)
{
	return failures > 0;
}

uint64_t
unit_seed(void)
{
	return seed;
}

uint64_t
unit_random(uint64_t *state)
{
	/* splitmix64 */
	uint64_t	z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void
choose_seed(void)
{
	const char *given = getenv("CONCORD_SEED");

	if (given != NULL)
	{
		char	   *end;

		errno = 0;
		seed = strtoull(given, &end, 10);
		if (errno != 0 || end == given || *end != '\0')
		{
			fprintf(stderr, "CONCORD_SEED must be a number, not \"%s\"\n", given);
			exit(2);
		}
	}
	else
		seed = (uint64_t) time(NULL) * 1000003 + (uint64_t) getpid();
	printf("# CONCORD_SEED=%" PRIu64 "\n", seed);
}

int
main(void)
{
	choose_seed();
	test_commit();
	test_commit_rules();
	test_deadlock();
	test_fresh();
	test_key();
	test_placement();
	test_placement_property();
	test_token();
	test_token_property();
	test_register();
	test_lock();
	test_lock_property();
	test_register_bytes();
	printf("%d passed, %d failed\n", passed, failed);
	return failed == 0 ? 0 : 1;
}
