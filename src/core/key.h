/*
 * key.h
 *		From a key's text to the value it is hashed as, and from a hash to a slot.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation.  The 64-bit hash itself is
 * PostgreSQL's (hash_bytes_extended and friends) and is called by the shard room.
 */
#ifndef CONCORD_CORE_KEY_H
#define CONCORD_CORE_KEY_H

#include <stddef.h>
#include <stdint.h>

#define CONCORD_SLOTS 4096

typedef enum ConcordKeyKind
{
	CONCORD_KEY_TEXT,			/* hashed as its bytes */
	CONCORD_KEY_INT8,			/* hashed as the integer it is the canonical form of */
	CONCORD_KEY_UUID			/* hashed as the 16 bytes it is the canonical form of */
} ConcordKeyKind;

/*
 * Tells what the text of a key (len bytes, any bytes, not terminated) is hashed as.
 *
 * INT8: exactly the form int8out writes: optional '-', no leading zero, no '+', no white space,
 * no "-0", within the range of int8; the value goes to *integer.
 * UUID: exactly the form uuid_out writes: 8-4-4-4-12 lower-case hex digits; the bytes go to uuid.
 * Everything else is TEXT.  Never fails, and reads nothing beyond len bytes.
 *
 * So two different texts are never one INT8 or one UUID: printing the value gives the text back.
 * Only the output that belongs to the kind returned may be looked at; the other is undefined.
 */
extern ConcordKeyKind concord_key_classify(const char *text, size_t len,
										   int64_t *integer, uint8_t uuid[16]);

/* The slot of a hash: its low 12 bits. */
static inline int
concord_hash_slot(uint64_t hash)
{
	return (int) (hash & (CONCORD_SLOTS - 1));
}

#endif							/* CONCORD_CORE_KEY_H */
