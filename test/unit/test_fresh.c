/*
 * test_fresh.c
 *		Samples of a node's position: what is said of a copy is never newer than what is true.
 */
#include "unit.h"

#include <string.h>

#include "core/fresh.h"

static void
samples_of_one_timeline(void)
{
	ConcordSamples s;

	memset(&s, 0, sizeof(s));
	CHECK(concord_samples_reached(&s, 1, UINT64_MAX) == 0);
	concord_samples_add(&s, 1, 100, 10);
	concord_samples_add(&s, 1, 200, 20);
	CHECK(concord_samples_reached(&s, 1, 99) == 0);
	CHECK(concord_samples_reached(&s, 1, 100) == 10);
	CHECK(concord_samples_reached(&s, 1, 199) == 10);
	CHECK(concord_samples_reached(&s, 1, 200) == 20);
	CHECK(concord_samples_reached(&s, 2, 200) == 0);
	CHECK(concord_samples_reached(&s, 0, 200) == 0);

	/* an idle node: the same position at a later time */
	concord_samples_add(&s, 1, 200, 30);
	CHECK(s.n == 2);
	CHECK(concord_samples_reached(&s, 1, 200) == 30);
	/* an answer that is late */
	concord_samples_add(&s, 1, 300, 25);
	CHECK(concord_samples_reached(&s, 1, 300) == 30);
	/* a crash took back what was not flushed */
	concord_samples_add(&s, 1, 150, 40);
	CHECK(concord_samples_reached(&s, 1, 149) == 10);
	CHECK(concord_samples_reached(&s, 1, 150) == 40);
	/* another timeline */
	concord_samples_add(&s, 2, 160, 50);
	CHECK(concord_samples_reached(&s, 1, 1000) == 0);
	CHECK(concord_samples_reached(&s, 2, 160) == 50);
}

/* Against a list of all samples: never newer, and not much older. */
static void
samples_thinned_out(void)
{
	enum
	{
		STEPS = 100000
	};
	static int64_t sent[STEPS];
	ConcordSamples s;
	uint64_t	random = unit_seed();
	int64_t		now = 0;

	memset(&s, 0, sizeof(s));
	for (int i = 0; i < STEPS && !unit_failed(); i++)
	{
		int			at = (int) (unit_random(&random) % (uint64_t) (i + 1));
		int64_t		told;

		now += 1 + (int64_t) (unit_random(&random) % 2000);
		sent[i] = now;
		concord_samples_add(&s, 1, 10 * (uint64_t) i, now);
		for (int k = 1; k < s.n; k++)
			CHECK(s.items[k - 1].sent_us < s.items[k].sent_us &&
				  s.items[k - 1].lsn < s.items[k].lsn);
		CHECK(concord_samples_reached(&s, 1, 10 * (uint64_t) i) == now);
		told = concord_samples_reached(&s, 1, 10 * (uint64_t) at + 5);
		CHECK(told > 0 && told <= sent[at]);
		/* what lies between two samples grows with their age */
		CHECK(now - told <= 2 * (now - sent[at]) + 4000, "step %d, %d: %lld told, %lld true", i,
			  at, (long long) (now - told), (long long) (now - sent[at]));
	}
}

void
test_fresh(void)
{
	RUN(samples_of_one_timeline);
	RUN(samples_thinned_out);
}
