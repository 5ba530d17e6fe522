/*
 * register_bytes.h
 *		The binary forms of register.h's structures, as they travel between nodes and are stored.
 *
 * Plain C, no allocation.  What is read points into the reader's bytes.  A reader fails (see
 * bytes.h) on what no writer wrote: an unknown kind, a number out of its range, a length beyond
 * the end, a configuration that is none.  So nothing that was read needs to be checked again,
 * except by the acceptor itself, which judges requests.
 */
#ifndef CONCORD_CORE_REGISTER_BYTES_H
#define CONCORD_CORE_REGISTER_BYTES_H

#include "core/bytes.h"
#include "core/register.h"

/* Longest name of a register, in bytes; a name is not empty. */
#define CONCORD_REGISTER_NAME_MAX 512

/* A writer that has this much room is never full: one message without name and value's bytes */
#define CONCORD_REQUEST_SIZE 192
#define CONCORD_ANSWER_SIZE 224
#define CONCORD_CONFIG_SIZE 128
#define CONCORD_BALLOT_SIZE 24
#define CONCORD_REGISTER_SIZE 96

extern void concord_put_name(ConcordWriter *w, const char *name, size_t len);
/* Returns its first byte, not terminated; NULL if the reader failed. */
extern const char *concord_get_name(ConcordReader *r, size_t *len);

extern void concord_put_ballot(ConcordWriter *w, const ConcordBallot *ballot);
extern void concord_get_ballot(ConcordReader *r, ConcordBallot *ballot);

extern void concord_put_request(ConcordWriter *w, const ConcordRequest *request);
extern void concord_get_request(ConcordReader *r, ConcordRequest *request);

extern void concord_put_answer(ConcordWriter *w, const ConcordAnswer *answer);
extern void concord_get_answer(ConcordReader *r, ConcordAnswer *answer);

extern void concord_put_config(ConcordWriter *w, const ConcordConfig *config);
extern void concord_get_config(ConcordReader *r, ConcordConfig *config);

/* A register's state without its value's bytes, which are stored beside it: data is NULL. */
extern void concord_put_register(ConcordWriter *w, const ConcordRegister *reg);
extern void concord_get_register(ConcordReader *r, ConcordRegister *reg);

#endif							/* CONCORD_CORE_REGISTER_BYTES_H */
