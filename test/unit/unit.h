/*
 * unit.h
 *		The few lines a unit test of core/ needs.
 *
 * A test is a function without arguments.  CHECK notes a failure and goes on; a test with at least
 * one failed CHECK has failed.
 */
#ifndef CONCORD_TEST_UNIT_H
#define CONCORD_TEST_UNIT_H

#include <stdbool.h>
#include <stdint.h>

#define CHECK(condition, ...) \
	((condition) ? (void) 0 : unit_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__))

#define RUN(test) unit_run(#test, test)

/* Notes a failure of the running test; what follows the condition tells the values. */
extern void unit_fail(const char *file, int line, const char *condition, const char *format,...)
			__attribute__((format(printf, 4, 5)));

/* Runs one test and prints one line about it. */
extern void unit_run(const char *name, void (*test) (void));

/* Whether the running test has failed already: a long one may stop then. */
extern bool unit_failed(void);

/* The seed of this run: from the environment (CONCORD_SEED), else of the moment. */
extern uint64_t unit_seed(void);

/* Pseudo-random numbers, the same on every machine for one seed. */
extern uint64_t unit_random(uint64_t *state);

/* One per file of tests */
extern void test_commit(void);
extern void test_commit_rules(void);
extern void test_deadlock(void);
extern void test_fresh(void);
extern void test_key(void);
extern void test_placement(void);
extern void test_placement_property(void);
extern void test_token(void);
extern void test_token_property(void);
extern void test_register(void);
extern void test_lock(void);
extern void test_lock_property(void);
extern void test_register_bytes(void);

#endif							/* CONCORD_TEST_UNIT_H */
