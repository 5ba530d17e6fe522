/*
 * leftovers.h
 *		Collects what deleted registers, and promises to nobody, leave behind.
 */
#ifndef CONCORD_QUORUM_LEFTOVERS_H
#define CONCORD_QUORUM_LEFTOVERS_H

#include "postgres.h"

/* Collects a register that was deleted, if all acceptors seem to answer. */
extern void concord_leftovers_collect(const char *name, size_t len);

/* The registrar's turn; returns when it wants the next one at the latest (ms). */
extern int64 concord_leftovers_turn(void);

#endif							/* CONCORD_QUORUM_LEFTOVERS_H */
