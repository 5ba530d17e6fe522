/*
 * coordinator.h
 *		Between the coordinator and the liveness table.
 */
#ifndef CONCORD_COMMIT_COORDINATOR_H
#define CONCORD_COMMIT_COORDINATOR_H

#include "commit/commit.h"

/*
 * resolver side: returns when this incarnation is durably recorded; 55000 when that takes too long
 */
extern void concord_incarnation_await(void);

extern void concord_liveness_init(void);
extern uint64 concord_liveness_enter(const char *label);
extern void concord_liveness_state(ConcordTxnState state);
extern void concord_liveness_participants(const int16 *participants, int n);
extern void concord_liveness_leave(void);

#endif							/* CONCORD_COMMIT_COORDINATOR_H */
