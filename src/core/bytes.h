/*
 * bytes.h
 *		Writing and reading the binary forms of core's structures: numbers in network order.
 *
 * A writer without room, or a reader without bytes, remembers that and goes on without touching
 * anything: one check at the end is enough.  What a failed reader returned is 0 or NULL.
 */
#ifndef CONCORD_CORE_BYTES_H
#define CONCORD_CORE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct ConcordWriter
{
	unsigned char *buf;
	size_t		size;
	size_t		len;			/* written so far */
	bool		full;			/* something had no room */
} ConcordWriter;

typedef struct ConcordReader
{
	const unsigned char *buf;
	size_t		len;
	size_t		at;				/* read so far */
	bool		failed;			/* something was missing */
} ConcordReader;

/* len bytes to be filled; NULL without room */
static inline unsigned char *
concord_put_room(ConcordWriter *w, size_t len)
{
	unsigned char *room = w->buf + w->len;

	if (w->full || len > w->size - w->len)
	{
		w->full = true;
		return NULL;
	}
	w->len += len;
	return room;
}

static inline void
concord_put_bytes(ConcordWriter *w, const void *data, size_t len)
{
	unsigned char *room = concord_put_room(w, len);

	if (room != NULL && len > 0)
		memcpy(room, data, len);
}

/* The lowest "width" bytes of a number */
static inline void
concord_put(ConcordWriter *w, uint64_t value, int width)
{
	unsigned char *room = concord_put_room(w, (size_t) width);

	for (int i = width - 1; i >= 0 && room != NULL; i--)
	{
		room[i] = (unsigned char) value;
		value >>= 8;
	}
}

/* len bytes that stay where they are; NULL if they are not there */
static inline const unsigned char *
concord_get_bytes(ConcordReader *r, size_t len)
{
	const unsigned char *bytes = r->buf + r->at;

	if (r->failed || len > r->len - r->at)
	{
		r->failed = true;
		return NULL;
	}
	r->at += len;
	return bytes;
}

static inline uint64_t
concord_get(ConcordReader *r, int width)
{
	const unsigned char *bytes = concord_get_bytes(r, (size_t) width);
	uint64_t	value = 0;

	for (int i = 0; i < width && bytes != NULL; i++)
		value = value << 8 | bytes[i];
	return value;
}

/* Was everything read, and nothing left over? */
static inline bool
concord_get_end(const ConcordReader *r)
{
	return !r->failed && r->at == r->len;
}

#endif							/* CONCORD_CORE_BYTES_H */
