/*
 * cluster.h
 *		The state of a simulated cluster, and what is called of network.c and acceptors.c.
 */
#ifndef CONCORD_TEST_CLUSTER_H
#define CONCORD_TEST_CLUSTER_H

#include "sim.h"

#define NODES 8
#define CLIENTS 4
#define CHANGER CLIENTS			/* the client that changes the set of acceptors */
#define CONFIGS 64
#define HEALING 4000			/* when faults end */
#define LAST 60000				/* when everything must have ended */

typedef enum EventKind
{
	EVENT_REQUEST,				/* arrives at a node */
	EVENT_FLUSHED,				/* at a node, and the answer may go */
	EVENT_ANSWER,				/* arrives at a client */
	EVENT_TIMER,				/* of a client */
	EVENT_FAULT,
	EVENT_RESTART,				/* of a node */
	EVENT_HEAL,
	EVENT_GUARDED,				/* the last two of locks.c alone: arrives at what a lock guards */
	EVENT_WAKE					/* of a client */
} EventKind;

/* Something done under a lock */
typedef struct SimGuarded
{
	int64_t		fence;
	uint64_t	order;			/* of the group of holders, as it really was */
	uint64_t	who;
} SimGuarded;

typedef struct Event
{
	int64_t		time;
	uint64_t	serial;			/* ties in the order of creation */
	EventKind	kind;
	int			node;
	int			client;
	int			reg;			/* -1: none */
	uint64_t	epoch;			/* of the node's run, or of the client's timer */
	uint32_t	names;			/* registers that an acceptor lists */
	union
	{
		ConcordRequest request;
		ConcordAnswer answer;
		SimGuarded	guarded;
	}			m;
} Event;

typedef struct Storage
{
	ConcordAcceptor acceptor;
	ConcordRegister reg[SIM_REGISTERS];
} Storage;

typedef struct Node
{
	Storage		memory;			/* what was stored */
	Storage		disk;			/* what was flushed */
	Storage		backup;
	bool		up;
	bool		dead;			/* for ever */
	bool		dirty;			/* memory was stored to since the last flush began to matter */
	bool		member_once;	/* this identity has been a member of some set */
	uint64_t	epoch;
	int64_t		paused_until;
	int64_t		cut_until;
} Node;

typedef enum Task
{
	TASK_NONE,
	TASK_OPERATION,
	TASK_TRANSFER				/* the changer, before the registers are read */
} Task;

typedef struct Client
{
	ConcordProposer proposer;
	ConcordAhead ahead[SIM_REGISTERS];
	ConcordProposal p;
	ConcordConfig config;
	int64_t		seen[SIM_REGISTERS];	/* version that it last heard of, 0: of none */
	Task		task;
	int			op;				/* index into the history */
	int64_t		deadline;
	int			left;			/* operations to begin */
	bool		up;
	int64_t		paused_until;
	int			rate;			/* of its clock, in percent */
	uint64_t	epoch;
} Client;

typedef struct Cluster
{
	uint64_t	seed;
	uint64_t	random;
	bool		verbose;
	bool		healed;
	int64_t		now;
	uint64_t	serial;
	uint32_t	lose;			/* percent */
	uint32_t	repeat;
	uint32_t	slow;
	uint32_t	node_faults;
	uint32_t	sudden;			/* crashes at once after a step, per mille */
	int			faults;			/* left */
	Node		node[NODES];
	Client		client[CLIENTS + 1];
	ConcordConfig configs[CONFIGS];	/* all that were ever made */
	int			nconfigs;
	ConcordTransfer transfer;
	uint32_t	names[CONCORD_ACCEPTORS_JOINT];
	uint32_t	to_read;		/* registers that the changer must read */
	int			final;			/* steps of the changer after healing */
	SimOperation ops[SIM_OPERATIONS];
	int			nops;
	const char *wrong;
	SimCounts  *counts;
} Cluster;

extern Cluster s;

/* Chance, of the seed */
extern uint32_t below(uint32_t n);
extern bool chance(uint32_t percent);

/* Shown with -v */
extern void trace(const char *format,...) __attribute__((format(printf, 1, 2)));

/* The queue of events: push() copies the event.  A full queue loses a message, as a network may. */
extern void push(const Event *event, int64_t time);
extern Event pop(void);
extern bool is_empty(void);
extern void empty_queue(void);

/* Sends a message on its way: once or twice, or never. */
extern void transmit(const Event *event);
extern bool is_cut(int node);

/* Acceptors.  A crash loses what is not flushed; with each answer all of memory is. */
extern void send_request(int client, int reg, const ConcordRequest *request);
extern void take_request(Event *e);
extern void take_flushed(Event *e);
extern void crash_node(int n);

/* Where an identity lives; -1 if it is gone */
extern int	node_of(const ConcordAcceptorId *id);

#endif							/* CONCORD_TEST_CLUSTER_H */
