/*
 * membership.h
 *		Changes the set of acceptors, one node at a time.
 */
#ifndef CONCORD_QUORUM_MEMBERSHIP_H
#define CONCORD_QUORUM_MEMBERSHIP_H

#include "postgres.h"

/* The registrar's turn; returns when it wants the next one at the latest (ms). */
extern int64 concord_membership_turn(void);

#endif							/* CONCORD_QUORUM_MEMBERSHIP_H */
