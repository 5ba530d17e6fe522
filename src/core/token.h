/*
 * token.h
 *		Session tokens: what a session has written and seen, as text and as positions, and whether a
 *		server has reached a position.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation.
 *
 * FORM.  A token is
 *
 *		c1:<cluster>[;<position>]...
 *		<position>: <node>.<generation>:<timeline>/<LSN>[?<xid>]
 *
 * cluster: uuid as uuid_out writes it; LSN: as pg_lsn writes it (two upper-case hex numbers of at
 * most eight digits without leading zeros, parted by '/'); the others decimal without sign or
 * leading zero.  Positions ascend by (node, generation, timeline, xid), no two have the same
 * four.  An example: c1:6ab2...;1.1:1/0/3000148;2.1:1/0/50001F0;2.1:1/0/5000300?734
 *
 * MEANING.  A position without xid is the end of a WAL record: everything up to it must have been
 * applied.  With xid it is the end of the PREPARE record (or later) of a branch whose transaction
 * was decided as committed; the position must have been applied, and the branch with this (64 bit)
 * transaction id must have ended there.
 *
 * INVARIANTS
 * T1 A text that is read is written the same again; everything else is refused.
 * T2 Adding never makes a token weaker: what satisfies the result satisfies both parts.
 * T3 LSNs are only compared within one timeline of one generation.  Positions on different
 *	  timelines are kept side by side until concord_token_settle() has seen the history that
 *	  contains the older one.
 * T4 A server is said to have REACHED a position only if its WAL contains the position: never from
 *	  an LSN on another timeline alone.
 */
#ifndef CONCORD_CORE_TOKEN_H
#define CONCORD_CORE_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONCORD_TOKEN_PREFIX "c1:"
#define CONCORD_TOKEN_POSITIONS 1024	/* at most, in one token */
#define CONCORD_POSITION_SIZE 80	/* bytes of one position's text at most, with its ';' */
#define CONCORD_TOKEN_HEAD 39		/* bytes before the first position */
/* a buffer for any token, with the terminating zero */
#define CONCORD_TOKEN_SIZE \
	(CONCORD_TOKEN_HEAD + CONCORD_TOKEN_POSITIONS * CONCORD_POSITION_SIZE + 1)

typedef struct ConcordPosition
{
	int			node;			/* 1 .. 32767 */
	int			generation;		/* 1 .. INT32_MAX */
	uint32_t	timeline;		/* 1 .. UINT32_MAX */
	uint64_t	lsn;			/* 1 .. UINT64_MAX */
	uint64_t	xid;			/* of a prepared branch, 0 = none */
} ConcordPosition;

/* The caller gives the memory for max positions; at most CONCORD_TOKEN_POSITIONS are used. */
typedef struct ConcordToken
{
	uint8_t		cluster[16];
	int			n;
	int			max;
	ConcordPosition *positions; /* ascending, see FORM */
} ConcordToken;

typedef enum ConcordTokenError
{
	CONCORD_TOKEN_OK = 0,
	CONCORD_TOKEN_SYNTAX,		/* not of the form above, or not in canonical order */
	CONCORD_TOKEN_VERSION,		/* of the form "c<number>:", but another number */
	CONCORD_TOKEN_TOO_LONG		/* more positions than there is room for */
} ConcordTokenError;

/*
 * Reads a token (len bytes, any bytes, not terminated) into *token, whose positions and max the
 * caller has set.  On an error *offset (may be NULL) is the byte at which the text stopped being a
 * token: the first that no token continues with after those before it (len, if one is missing),
 * the number of another version, or the first byte of a position that is out of order or too many;
 * and the token is undefined.  Reads nothing beyond len bytes.
 */
extern ConcordTokenError concord_token_parse(const char *text, size_t len, ConcordToken *token,
											 size_t *offset);

/*
 * Writes the token, terminated by a zero, and returns its length; size bytes are there.  Returns
 * -1 and writes an empty string (if size > 0) when it does not fit, or is nothing that
 * concord_token_parse() would read: a position is out of range or out of order, or one too many.
 */
extern int	concord_token_format(const ConcordToken *token, char *buf, size_t size);

/*
 * Adds a position: of two with the same node, generation, timeline and xid the greater LSN stays.
 * Returns false, with the token unchanged, when there is no room.
 */
extern bool concord_token_add(ConcordToken *token, const ConcordPosition *position);

/*
 * Adds all of another token's positions; false, with *token unchanged, when there is no room.  That
 * both are of one cluster is for the caller to see.
 */
extern bool concord_token_merge(ConcordToken *token, const ConcordToken *other);

/*
 * Removes the positions of a node with this xid (a branch that was found to have ended); 0, which
 * is no branch, removes nothing.
 */
extern void concord_token_remove_xid(ConcordToken *token, int node, int generation, uint64_t xid);

/* ---------------------------------------------------------------- servers */

/* One timeline a server's WAL went through: it was left at this LSN for the next one. */
typedef struct ConcordTimeline
{
	uint32_t	timeline;
	uint64_t	end;			/* switch point; not looked at for the current timeline */
} ConcordTimeline;

typedef struct ConcordServer
{
	int			node;			/* whose WAL this is */
	int			generation;
	bool		primary;		/* writes this WAL itself, else only applies it */
	uint32_t	timeline;		/* current (primary) or that of the last record applied */
	uint64_t	lsn;			/* end of WAL (primary) or of the last record applied */
	int			nhistory;		/* earlier timelines of the current one, any order */
	const ConcordTimeline *history;
} ConcordServer;

typedef enum ConcordReach
{
	CONCORD_REACHED,			/* contained and applied; with an xid, look whether it has ended */
	CONCORD_AHEAD,				/* may still come: wait */
	CONCORD_LEFT_BEHIND,		/* this server was left behind: the position is on a newer timeline
								 * or generation, which will not come by itself */
	CONCORD_LOST				/* it is not in this server's WAL and never will be */
} ConcordReach;

/*
 * Judges a position of the server's own node.
 *
 *	generation	timeline				LSN					primary			standby
 *	older		any						any					LOST			LOST
 *	newer		any						any					LEFT_BEHIND		AHEAD
 *	same		current					<= lsn				REACHED			REACHED
 *	same		current					> lsn				LOST			AHEAD
 *	same		in history				<= its end			REACHED			REACHED
 *	same		in history				> its end			LOST			LOST
 *	same		not in it, < current	any					LOST			LOST
 *	same		> current				any					LEFT_BEHIND		AHEAD
 *
 * (Primary, current timeline, beyond the end of WAL: written with synchronous_commit = off and
 * lost in a crash, or forged.)
 */
extern ConcordReach concord_position_judge(const ConcordPosition *position,
										   const ConcordServer *server);

/*
 * Judges all of the server's own node's positions: the worst of them (LOST, LEFT_BEHIND, AHEAD,
 * REACHED in this order); *which (may be NULL) is the first position with that verdict, or -1
 * when the token has none of this node, which is REACHED.
 */
extern ConcordReach concord_token_judge(const ConcordToken *token, const ConcordServer *server,
										int *which);

/*
 * T3: drops the server's node's positions without xid that another position, on a later timeline
 * of the same generation, is known to include by this server's history: both timelines are in it,
 * or the later one is the current one, and the dropped LSN is not beyond its timeline's end.  Of
 * other generations than the server's own the history says nothing.
 */
extern void concord_token_settle(ConcordToken *token, const ConcordServer *server);

#endif							/* CONCORD_CORE_TOKEN_H */
