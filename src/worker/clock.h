/*
 * clock.h
 *		Time as the workers measure it: a clock that no administrator and no NTP step can move.
 *
 * Timestamps (GetCurrentTimestamp) are only for showing; every interval of this room is measured
 * here.
 */
#ifndef CONCORD_WORKER_CLOCK_H
#define CONCORD_WORKER_CLOCK_H

#include "postgres.h"

#include <time.h>

#include "common/pg_prng.h"

static inline int64
concord_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline int64
concord_clock_ms(void)
{
	return concord_clock_us() / 1000;
}

/*
 * How long to wait after this many failures in a row (>= 1): first_ms doubled each time up to
 * max_ms, of which a random half is taken off, so that many who failed together do not
 * come back together.
 */
static inline int64
concord_backoff_ms(int failures, int64 first_ms, int64 max_ms)
{
	int64		delay = first_ms;

	for (int i = 1; i < failures && delay < max_ms; i++)
		delay *= 2;
	delay = Min(delay, max_ms);
	return delay - (int64) (pg_prng_double(&pg_global_prng_state) * delay / 2);
}

#endif							/* CONCORD_WORKER_CLOCK_H */
