/*
 * fault.h
 *		Named points at which a test can make this process fail.
 *
 * Compiled in only with -DCONCORD_FAULTS (make FAULTS=1); in a release build a point is nothing.
 */
#ifndef CONCORD_FAULT_H
#define CONCORD_FAULT_H

#ifdef CONCORD_FAULTS
extern void concord_fault(const char *point);
extern void concord_fault_init(void);
#else
#define concord_fault(point) ((void) 0)
#define concord_fault_init() ((void) 0)
#endif

#endif							/* CONCORD_FAULT_H */
