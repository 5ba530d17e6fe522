/*
 * quorum.h
 *		Replicated registers: what the files of this room share, and what is above it uses.
 *
 * WHAT: core/register.h decides; here what it decides is stored, flushed, sent and waited for.
 *
 *		acceptor.c		this node as an acceptor: loads, steps, stores; the flush is the commit's
 *		configuration.c	who the acceptors are, as far as this node has heard
 *		proposals.c		many operations at once over one link to each acceptor
 *		membership.c	changes the set of acceptors, one node at a time
 *		leftovers.c		collects what deleted registers, and promises to nobody, leave behind
 *		desk.c			how sessions hand operations to the registrar, which runs proposals.c
 *		registers.c		register_get and its like
 */
#ifndef CONCORD_QUORUM_QUORUM_H
#define CONCORD_QUORUM_QUORUM_H

#include "postgres.h"

#include "base/compat.h"
#include "core/register.h"
#include "core/register_bytes.h"
#include "nodes/pg_list.h"
#include "utils/uuid.h"

/*
 * Names of registers: the first two bytes tell whose they are.  Longest name of a user's register
 * or lock, in bytes: fits any index, and a line.
 */
#define CONCORD_NAME_MAX 255
#define CONCORD_PREFIX_REGISTER "r:"
#define CONCORD_PREFIX_LOCK "l:"
#define CONCORD_PREFIX_LEASE "n:"
#define CONCORD_PREFIX_CONFIGURATION "c:"	/* and the version after which it decides */

/* ---- acceptor.c ---- */

/*
 * This node's identity as an acceptor; a new one with renew, 55006 while it may be one of the
 * acceptors.  In a transaction.
 */
extern ConcordAcceptorId concord_acceptor_identity(bool renew);

/* The transaction is flushed when it commits, and waits for no standby. */
extern void concord_quorum_flush(void);

/*
 * Names (char *, palloc'd) of registers that this acceptor holds as deleted, and of those that it
 * has only promised something; at most so many of each.
 */
extern void concord_acceptor_leftovers(int max, List **tombstones, List **blanks);

/* Forgets those of the second kind that still are (R6).  The rest of the transaction is short. */
extern void concord_acceptor_forget_blanks(List *names);

/* ---- configuration.c ---- */

/* The newest set that this node has heard of; false if none.  In a transaction. */
extern bool concord_configuration_read(ConcordConfig *config);

/* Stores a decided set if it is newer than what is known, and flushes; returns whether it was. */
extern bool concord_configuration_store(const ConcordConfig *config);

/* Raises 08P01: a peer sent what no version of this protocol sends. */
pg_noreturn extern void concord_quorum_malformed(void);

/* ---- registers.c ---- */

/* 22023 unless it may be the name of a register, or of a lock. */
extern void concord_check_quorum_name(const char *kind, const char *name);

#endif							/* CONCORD_QUORUM_QUORUM_H */
