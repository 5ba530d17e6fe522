/*
 * fresh.c
 *		Samples of a node's position, see fresh.h.
 */
#include "core/fresh.h"

#include <assert.h>
#include <string.h>

/*
 * Forgets the sample that is missed least: where the gap that it leaves is the smallest in
 * proportion to its age.  The oldest and the newest stay.
 */
static void
forget_one(ConcordSamples *samples)
{
	ConcordSample *items = samples->items;
	int64_t		now = items[samples->n - 1].sent_us;
	int			best = 1;
	double		least = 2;

	for (int i = 1; i < samples->n - 1; i++)
	{
		double		gap = (double) (items[i + 1].sent_us - items[i - 1].sent_us);
		double		missed = gap / (double) (now - items[i - 1].sent_us);

		/* among equals the older one */
		if (missed < least)
		{
			least = missed;
			best = i;
		}
	}
	memmove(&items[best], &items[best + 1], (samples->n - best - 1) * sizeof(ConcordSample));
	samples->n--;
}

void
concord_samples_add(ConcordSamples *samples, uint32_t timeline, uint64_t lsn, int64_t sent_us)
{
	if (timeline != samples->timeline)
	{
		samples->timeline = timeline;
		samples->n = 0;			/* F1 */
	}
	if (samples->n > 0 && samples->items[samples->n - 1].sent_us >= sent_us)
		return;
	/* whoever has those has this newer one (or the node lost what was not flushed in a crash) */
	while (samples->n > 0 && samples->items[samples->n - 1].lsn >= lsn)
		samples->n--;
	if (samples->n == CONCORD_SAMPLES)
		forget_one(samples);	/* F2 */
	samples->items[samples->n].sent_us = sent_us;
	samples->items[samples->n++].lsn = lsn;
	assert(samples->n <= CONCORD_SAMPLES);
}

int64_t
concord_samples_reached(const ConcordSamples *samples, uint32_t timeline, uint64_t lsn)
{
	if (timeline != samples->timeline)
		return 0;
	for (int i = samples->n - 1; i >= 0; i--)
		if (samples->items[i].lsn <= lsn)
			return samples->items[i].sent_us;
	return 0;
}
