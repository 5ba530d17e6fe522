/*
 * proposals.c
 *		Many operations on registers at once.
 *
 * WHAT: an operation (task) is a state machine of core/register.h.  Here its requests are put into
 * batches, answers are given to it, and timers make it try again.
 *
 * STATES of a task (function on the edge)
 *		PENDING (its register has another one) --start_task--> RUNNING --finish--> gone
 *
 * INVARIANTS
 * Q1 At most one task is running on a register.  A register's seat keeps its proposer and what that
 *	  may go on with in one round (R11).  Numbers of proposers come from a counter in shared memory
 *	  (R1).  A seat that is given to another register takes its proposer along, with its counter,
 *	  so that a registrar needs no more numbers than it has seats.
 * Q2 All running tasks are of the set of acceptors in use: when that changes, each is told.
 * Q3 An answer is given to the task that asked, if it is still there; it knows by itself which of
 *	  its requests that answers.
 * Q4 Every task has a deadline.
 * Q5 A callback is called once, never from within the function that was given it.
 * Q6 Collecting waits for everybody, and nobody waits for it: another operation on the register
 *	  ends it.
 *
 * What a crash leaves: register.h, "a crash leaves ... of a proposer".
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "cluster/map.h"
#include "cluster/room.h"
#include "common/pg_prng.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "peer/peer.h"
#include "quorum/desk.h"
#include "quorum/engine.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define PROTOCOL 1
#define CONFIG_SQL "SELECT c.cluster, c.body FROM concord._configuration() c"
#define BATCH_ITEMS 256			/* in one transaction, at most */
#define BATCH_BYTES (8 * 1024 * 1024)	/* of values: one more is added beyond it */
#define SEATS 4096				/* registers that are remembered for the one-round path */
#define SEAT_VALUE_MAX 8192		/* longer values are not */
#define SILENCE_MS 500			/* without any progress: tried again, and a newer set looked for */
#define SILENCE_DOUBLED 3		/* at most so often: an overloaded server needs longer */
#define ASK_CONFIG_PAUSE_MS 200

typedef struct Seat
{
	char		name[CONCORD_REGISTER_NAME_MAX + 2];	/* key: length and bytes */
	ConcordProposer proposer;	/* Q1 */
	ConcordAhead ahead;
	void	   *data;			/* of ahead.value, our copy; NULL = none */
	ConcordTask *running;
	int			tasks;			/* pending and running */
	dlist_node	lru;			/* while there are none: most recently used first */
} Seat;

struct ConcordTask
{
	dlist_node	node;			/* of the list of running ones, or of pending ones */
	uint64		number;			/* Q3: never given twice */
	MemoryContext context;
	Seat	   *seat;
	const char *name;
	size_t		name_len;
	ConcordOperation op;
	int64		expected;
	void	   *data;
	uint32		len;
	ConcordTaskDone done;
	void	   *arg;
	int64		deadline;
	bool		running;
	ConcordProposal proposal;
	int64		sent_us;
	uint32		send_to;		/* indexes of acceptors that the present request is to be sent to */
	int64		retry_at;		/* backing off, or silence */
	bool		backing_off;
};

typedef struct Transfer
{
	bool		active;
	uint64		number;			/* Q3, as a task's */
	ConcordTransfer core;
	uint32		send_to;
	List	   *names[CONCORD_ACCEPTORS_JOINT]; /* that each has listed, of text * */
	MemoryContext context;
	int64		deadline;
	ConcordTransferDone done;
	void	   *arg;
} Transfer;

MemoryContext ConcordQuorumContext;
MemoryContext ConcordTurnContext;

static ConcordConfig current;	/* version 0: none is known */
static pg_uuid_t cluster;
static int	self;
static int	authority;
static int64 map_epoch = -1;
static dlist_head running;		/* of ConcordTask */
static dlist_head pending;		/* the same, in the order in which they came */
static int	active;
static HTAB *seats;
static dlist_head free_seats;
static uint64 last_number;
static uint64 highest_counter;	/* of any ballot: new proposers begin there */
static int64 ask_config_at;		/* not before */
static Transfer transfer;

static void handle(ConcordTask *task, ConcordNext next);

/*
 * The set under which a register is decided: of those that decide configurations the old set alone
 * (membership.c, B2).
 */
static ConcordConfig
set_for(const char *name, size_t len)
{
	ConcordConfig config = current;

	if (len > strlen(CONCORD_PREFIX_CONFIGURATION) &&
		memcmp(name, CONCORD_PREFIX_CONFIGURATION, strlen(CONCORD_PREFIX_CONFIGURATION)) == 0)
		config.new_set = 0;
	return config;
}

/* ---------------------------------------------------------------- tasks and seats */

static void
seat_key(char key[CONCORD_REGISTER_NAME_MAX + 2], const char *name, size_t len)
{
	memset(key, 0, CONCORD_REGISTER_NAME_MAX + 2);
	key[0] = (char) (len >> 8);
	key[1] = (char) len;
	memcpy(key + 2, name, len);
}

static void
forget_ahead(Seat *seat)
{
	if (seat->data != NULL)
		pfree(seat->data);
	seat->data = NULL;
	memset(&seat->ahead, 0, sizeof(seat->ahead));
}

/* Q1; returns its proposer. */
static ConcordProposer
drop_seat(Seat *seat)
{
	ConcordProposer proposer = seat->proposer;

	forget_ahead(seat);
	dlist_delete(&seat->lru);
	hash_search(seats, seat->name, HASH_REMOVE, NULL);
	return proposer;
}

static Seat *
take_seat(const char *name, size_t len)
{
	char		key[CONCORD_REGISTER_NAME_MAX + 2];
	bool		found;
	Seat	   *seat;

	seat_key(key, name, len);
	seat = hash_search(seats, key, HASH_FIND, NULL);
	if (seat == NULL)
	{
		ConcordProposer proposer = {.incarnation = ConcordShared->incarnation,.node = self};

		if (hash_get_num_entries(seats) >= SEATS && !dlist_is_empty(&free_seats))
			proposer = drop_seat(dlist_tail_element(Seat, lru, &free_seats));
		else
			proposer.proposer = concord_desk_proposer();
		seat = hash_search(seats, key, HASH_ENTER, &found);
		seat->proposer = proposer;
		memset(&seat->ahead, 0, sizeof(seat->ahead));
		seat->data = NULL;
		seat->running = NULL;
		seat->tasks = 0;
		dlist_push_head(&free_seats, &seat->lru);
	}
	if (seat->tasks++ == 0)
		dlist_delete(&seat->lru);
	return seat;
}

static void
leave_seat(Seat *seat)
{
	if (--seat->tasks == 0)
		dlist_push_head(&free_seats, &seat->lru);
}

void
concord_quorum_start(const char *name, size_t name_len, ConcordOperation op, int64 expected,
					 const void *data, uint32 len, int timeout_ms, ConcordTaskDone done,
					 void *arg)
{
	MemoryContext context = AllocSetContextCreate(ConcordQuorumContext, "concord register operation",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ConcordTask *task = palloc0(sizeof(ConcordTask));

	task->context = context;
	task->number = ++last_number;
	task->name = pnstrdup(name, name_len);
	task->name_len = name_len;
	task->op = op;
	task->expected = expected;
	task->len = len;
	if (len > 0)
	{
		task->data = palloc_extended(len, MCXT_ALLOC_HUGE);
		memcpy(task->data, data, len);
	}
	task->done = done;
	task->arg = arg;
	task->deadline = concord_quorum_ms() + timeout_ms;
	task->seat = take_seat(name, name_len);
	if (task->seat->running != NULL && task->seat->running->op == CONCORD_COLLECT)
		(void) concord_proposal_give_up(&task->seat->running->proposal);	/* Q6 */
	dlist_push_tail(&pending, &task->node);
	MemoryContextSwitchTo(old);
	active++;
}

int
concord_quorum_active(void)
{
	return active;
}

/* Keeps what the next operation on the register may go on with. */
static void
keep_ahead(Seat *seat, const ConcordAhead *ahead)
{
	forget_ahead(seat);
	if (ahead->ballot.counter == 0 || ahead->value.len > SEAT_VALUE_MAX)
		return;
	seat->ahead = *ahead;
	seat->data = MemoryContextAlloc(ConcordQuorumContext, Max(ahead->value.len, 1));
	if (ahead->value.len > 0)
		memcpy(seat->data, ahead->value.data, ahead->value.len);
	seat->ahead.value.data = seat->data;
}

/*
 * A read that found in one round what its proposer wrote last: nobody was asked to promise
 * anything, so what that may go on with is good still.
 */
static bool
only_looked(const ConcordTask *task)
{
	const ConcordProposal *p = &task->proposal;

	return p->op == CONCORD_READ && p->rounds == 1 && p->result == CONCORD_RESULT_OK &&
		p->value.kind == CONCORD_VALUE_SET &&
		p->value.version == task->seat->ahead.value.version;
}

static void
finish(ConcordTask *task)
{
	ConcordTaskOutcome outcome = {
		.result = task->proposal.result,
		.value = task->proposal.value,
		.sent_us = task->sent_us,
		.rounds = (int) task->proposal.rounds
	};
	Seat	   *seat = task->seat;

	dlist_delete(&task->node);
	if (task->running)
	{
		highest_counter = Max(highest_counter, seat->proposer.counter);
		if (!only_looked(task))
			keep_ahead(seat, &task->proposal.ahead);
		seat->running = NULL;
	}
	leave_seat(seat);
	outcome.no_majority = outcome.result == CONCORD_RESULT_FAILED ||
		outcome.result == CONCORD_RESULT_UNKNOWN;
	active--;
	if (task->done != NULL)
		task->done(&outcome, task->arg);
	MemoryContextDelete(task->context);
}

/* What the state machine wants next. */
static void
handle(ConcordTask *task, ConcordNext next)
{
	int64		now = concord_quorum_ms();

	if (next == CONCORD_NEXT_WAIT)
		return;					/* a late answer does not end a backoff either */
	task->backing_off = false;
	switch (next)
	{
		case CONCORD_NEXT_WAIT:
			break;
		case CONCORD_NEXT_SEND:
			task->send_to = task->proposal.config.old_set | task->proposal.config.new_set;
			task->retry_at = now + (SILENCE_MS << Min(task->proposal.attempts, SILENCE_DOUBLED));
			break;
		case CONCORD_NEXT_BACK_OFF:
			task->send_to = 0;
			task->backing_off = true;
			/* a round trip with a flush is taken for a millisecond; chance parts the rivals */
			task->retry_at = now + 1 + (int64) (pg_prng_double(&pg_global_prng_state) *
												Min(task->proposal.backoff, 64));
			break;
		case CONCORD_NEXT_RECONFIGURE:
			task->send_to = 0;
			task->retry_at = now + SILENCE_MS;
			concord_quorum_ask_config();
			break;
		case CONCORD_NEXT_DONE:
			break;				/* the turn finds it (Q5) */
	}
}

static void
start_task(ConcordTask *task)
{
	Seat	   *seat = task->seat;
	ConcordAhead *ahead = seat->ahead.ballot.counter > 0 && task->op != CONCORD_READ ?
		&seat->ahead : NULL;
	ConcordConfig config;

	dlist_delete(&task->node);
	dlist_push_tail(&running, &task->node);
	seat->running = task;
	task->running = true;
	task->sent_us = concord_copy_clock_us();
	if (ahead != NULL && ahead->value.len > 0)
	{
		/* the operation may look at it as long as it lives, the seat gets another */
		void	   *copy = MemoryContextAlloc(task->context, ahead->value.len);

		memcpy(copy, ahead->value.data, ahead->value.len);
		ahead->value.data = copy;
	}
	/*
	 * The time is a guess at what others have used meanwhile, who guess alike: whoever comes later
	 * is higher, most often.  A wrong guess costs a round.
	 */
	seat->proposer.counter = Max(seat->proposer.counter, highest_counter);
	seat->proposer.counter = Max(seat->proposer.counter, (uint64) Max(GetCurrentTimestamp(), 0));
	config = set_for(task->name, task->name_len);
	handle(task, concord_proposal_start(&task->proposal, &seat->proposer, &config, task->op,
										task->expected, task->data, task->len, ahead,
										pg_prng_uint64(&pg_global_prng_state)));
	if (task->op != CONCORD_READ)
		forget_ahead(seat);		/* it is used up, or of no use; else see finish() */
}

static ConcordTask *
find_task(uint64 number)
{
	dlist_iter	iter;

	dlist_foreach(iter, &running)
	{
		ConcordTask *task = dlist_container(ConcordTask, node, iter.cur);

		if (task->number == number)
			return task;
	}
	return NULL;
}

/* ---------------------------------------------------------------- batches */

bool
concord_batch_wanted(int node_id)
{
	dlist_iter	iter;

	for (int i = 0; i < current.n; i++)
	{
		if (current.acceptor[i].node != node_id)
			continue;
		if (transfer.active && (transfer.send_to & (UINT32_C(1) << i)))
			return true;
		dlist_foreach(iter, &running)
			if (dlist_container(ConcordTask, node, iter.cur)->send_to & (UINT32_C(1) << i))
				return true;
	}
	return false;
}

/* Room for one more request */
static void
grow(unsigned char **buf, size_t *size, size_t len, size_t more)
{
	if (*size - len >= more)
		return;
	*size = Max(*size * 2, len + more);
	*buf = repalloc_huge(*buf, *size);
}

unsigned char *
concord_batch_make(int node_id, size_t *len, ConcordSent **sent, int *nsent)
{
	size_t		size = 4096;
	unsigned char *buf = palloc(size);
	ConcordWriter w;
	ConcordRequest request;
	dlist_iter	iter;
	int			n = 0;

	*sent = MemoryContextAlloc(ConcordQuorumContext, BATCH_ITEMS * sizeof(ConcordSent));
	w = (ConcordWriter) {buf, size, 0, false};
	concord_put(&w, PROTOCOL, 1);
	concord_put(&w, 0, 2);		/* their number, later */
	for (int i = 0; i < current.n && n < BATCH_ITEMS; i++)
	{
		if (current.acceptor[i].node != node_id)
			continue;
		if (transfer.active && (transfer.send_to & (UINT32_C(1) << i)))
		{
			concord_transfer_request(&transfer.core, i, &request);
			concord_put_request(&w, &request);
			transfer.send_to &= ~(UINT32_C(1) << i);
			(*sent)[n++] = (ConcordSent) {transfer.number, i};
		}
		dlist_foreach(iter, &running)
		{
			ConcordTask *task = dlist_container(ConcordTask, node, iter.cur);

			if (n >= BATCH_ITEMS || w.len > BATCH_BYTES)
				break;
			if ((task->send_to & (UINT32_C(1) << i)) == 0)
				continue;
			concord_proposal_request(&task->proposal, i, &request);
			grow(&buf, &size, w.len,
				 2 * CONCORD_REQUEST_SIZE + task->name_len + request.value.len);
			w.buf = buf;
			w.size = size;
			concord_put_request(&w, &request);
			concord_put_name(&w, task->name, task->name_len);
			task->send_to &= ~(UINT32_C(1) << i);
			(*sent)[n++] = (ConcordSent) {task->number, i};
		}
	}
	Assert(!w.full);
	*nsent = n;
	buf[1] = (unsigned char) (n >> 8);
	buf[2] = (unsigned char) n;
	*len = w.len;
	return buf;
}

/* An acceptor that is not whom the set names is one less; a newer set may know better. */
static void
take_answer(ConcordTask *task, const ConcordAnswer *answer)
{
	MemoryContext old = MemoryContextSwitchTo(task->context);
	ConcordProposal *p = &task->proposal;
	ConcordAnswer kept = *answer;
	void	   *copy = NULL;

	/* the proposal points to the value as long as it lives */
	if (answer->value.len > 0)
	{
		copy = palloc_extended(answer->value.len, MCXT_ALLOC_HUGE);
		memcpy(copy, answer->value.data, answer->value.len);
		kept.value.data = copy;
	}
	handle(task, concord_proposal_answer(p, &kept));
	if (answer->kind == CONCORD_ANSWER_STRANGER)
		concord_quorum_ask_config();
	if (copy != NULL && p->base.data != copy && p->proposed.data != copy && p->value.data != copy)
		pfree(copy);
	MemoryContextSwitchTo(old);
}

static void
end_transfer(bool ok)
{
	Transfer	ended = transfer;
	List	   *names = NIL;

	transfer.active = false;
	for (int i = 0; i < ended.core.config.n && ok; i++)
		if (ended.core.listed & (UINT32_C(1) << i))
			names = list_concat(names, ended.names[i]);
	ended.done(ok, names, ended.arg);
	MemoryContextDelete(ended.context);
}

/* R9: a list that was made for another transfer may lack what was written since. */
static bool
is_transfers(const ConcordSent *sent)
{
	return transfer.active && sent->task == transfer.number;
}

static void
take_transfer_answer(int index, const ConcordAnswer *answer, List *names)
{
	ConcordNext next;

	if (answer->kind == CONCORD_ANSWER_ENLISTED && transfer.names[index] == NIL)
		transfer.names[index] = names;
	next = concord_transfer_answer(&transfer.core, answer);
	if (next == CONCORD_NEXT_SEND)
		transfer.send_to = transfer.core.config.old_set | transfer.core.config.new_set;
	else if (next == CONCORD_NEXT_DONE)
		end_transfer(true);
	else if (next == CONCORD_NEXT_RECONFIGURE)
	{
		concord_quorum_ask_config();
		end_transfer(false);
	}
}

static List *
read_names(ConcordReader *r)
{
	uint64		n = concord_get(r, 4);
	MemoryContext old = MemoryContextSwitchTo(transfer.active ? transfer.context :
											  ConcordTurnContext);
	List	   *names = NIL;

	for (uint64 i = 0; i < n && !r->failed; i++)
	{
		size_t		len;
		const char *name = concord_get_name(r, &len);

		if (name != NULL)
			names = lappend(names, cstring_to_text_with_len(name, (int) len));
	}
	MemoryContextSwitchTo(old);
	return names;
}

bool
concord_batch_answered(ConcordSent *sent, int nsent, const ConcordReply *reply)
{
	ConcordReader r = {(unsigned char *) reply->values[0], (size_t) reply->length, 0, false};
	ConcordConfig newer = {0};

	if (concord_get(&r, 1) != PROTOCOL || concord_get(&r, 2) != (uint64) nsent)
		r.failed = true;
	for (int i = 0; i < nsent && !r.failed; i++)
	{
		ConcordAnswer answer;
		ConcordTask *task;
		List	   *names = NIL;

		concord_get_answer(&r, &answer);
		if (!r.failed && answer.kind == CONCORD_ANSWER_ENLISTED)
			names = read_names(&r);
		if (r.failed)
			break;
		task = find_task(sent[i].task);
		if (task != NULL)
			take_answer(task, &answer);
		else if (is_transfers(&sent[i]))
			take_transfer_answer(sent[i].index, &answer, names);
	}
	if (!r.failed && concord_get(&r, 1) == 1)
		concord_get_config(&r, &newer);
	pfree(sent);
	if (!concord_get_end(&r))
		return false;
	if (newer.version > 0)
		concord_quorum_decided(&newer);
	return true;
}

void
concord_batch_lost(ConcordSent *sent, int nsent)
{
	for (int i = 0; i < nsent; i++)
	{
		ConcordTask *task = find_task(sent[i].task);

		/* unless it asks something else by now */
		if (task != NULL)
			task->send_to |= concord_proposal_missing(&task->proposal) &
				(UINT32_C(1) << sent[i].index);
		else if (is_transfers(&sent[i]))
			transfer.send_to |= UINT32_C(1) << sent[i].index;
	}
	pfree(sent);
}

/* ---------------------------------------------------------------- the set of acceptors */

const ConcordConfig *
concord_quorum_config(void)
{
	return current.version > 0 ? &current : NULL;
}

/* Q2 */
static void
adopt(const ConcordConfig *config)
{
	dlist_iter	iter;

	current = *config;
	if (transfer.active && transfer.core.config.version < config->version)
		end_transfer(false);
	dlist_foreach(iter, &running)
	{
		ConcordTask *task = dlist_container(ConcordTask, node, iter.cur);

		ConcordConfig set = set_for(task->name, task->name_len);

		if (task->proposal.phase != CONCORD_DONE)
			handle(task, concord_proposal_reconfigure(&task->proposal, &set));
	}
}

/* G4 of configuration.c: false if it could not be stored, so must not be used. */
static bool
store(const ConcordConfig *config)
{
	volatile bool stored = true;

	StartTransactionCommand();
	AcceptInvalidationMessages();
	PG_TRY();
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		(void) concord_configuration_store(config);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		stored = false;
		MemoryContextSwitchTo(ConcordTurnContext);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(ConcordTurnContext);
	return stored;
}

void
concord_quorum_decided(const ConcordConfig *config)
{
	if (config->version > current.version && store(config))
		adopt(config);
}

static void
config_heard(int node_id, ConcordReply *reply, void *arg)
{
	ConcordConfig config;
	char	   *hex;
	size_t		len;
	unsigned char bytes[CONCORD_CONFIG_SIZE];
	ConcordReader r;

	(void) node_id;
	(void) arg;
	if (reply == NULL || !reply->ok || reply->nrows != 1 || reply->ncols != 2 ||
		concord_reply_value(reply, 0, 0) == NULL || concord_reply_value(reply, 0, 1) == NULL ||
		strcmp(concord_reply_value(reply, 0, 0), concord_uuid_text(&cluster)) != 0)
		return;
	hex = concord_reply_value(reply, 0, 1);
	len = strlen(hex);
	if (len < 2 || strncmp(hex, "\\x", 2) != 0 || (len - 2) / 2 > sizeof(bytes))
		return;
	r = (ConcordReader) {bytes, hex_decode(hex + 2, len - 2, (char *) bytes), 0, false};
	concord_get_config(&r, &config);
	if (concord_get_end(&r))
		concord_quorum_decided(&config);
}

void
concord_quorum_ask_config(void)
{
	int64		now = concord_quorum_ms();
	ConcordQuorumNode *list;
	int			n;

	if (now < ask_config_at)
		return;
	ask_config_at = now + ASK_CONFIG_PAUSE_MS;
	n = concord_quorum_nodes(&list);
	for (int i = 0; i < n; i++)
		concord_quorum_call(list[i].node_id, CONFIG_SQL, 0, NULL, SILENCE_MS, config_heard, NULL);
}

void
concord_quorum_transfer(const ConcordConfig *joint, int timeout_ms, ConcordTransferDone done,
						void *arg)
{
	ConcordNext next;

	Assert(!transfer.active);
	memset(&transfer, 0, sizeof(transfer));
	transfer.active = true;
	transfer.number = ++last_number;
	transfer.context = AllocSetContextCreate(ConcordQuorumContext, "concord transfer",
											 ALLOCSET_DEFAULT_SIZES);
	transfer.done = done;
	transfer.arg = arg;
	transfer.deadline = concord_quorum_ms() + timeout_ms;
	next = concord_transfer_start(&transfer.core, joint);
	Assert(next == CONCORD_NEXT_SEND);
	(void) next;
	transfer.send_to = joint->old_set | joint->new_set;
}

/* ---------------------------------------------------------------- the turn */

const char *
concord_quorum_cluster(void)
{
	return concord_uuid_text(&cluster);
}

int
concord_quorum_self(void)
{
	return self;
}

bool
concord_quorum_is_authority(void)
{
	return self != 0 && self == authority;
}

bool
concord_quorum_sync(void)
{
	const ConcordMap *map;
	ConcordConfig config;
	bool		known = false;
	bool		member;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	AcceptInvalidationMessages();
	map = concord_map();
	/* what the seats keep may belong to another cluster: a new process has none of it */
	member = map->membership == CONCORD_MEMBER &&
		(self == 0 ||
		 (self == map->self && memcmp(&cluster, &map->cluster_id, UUID_LEN) == 0));
	if (member)
	{
		cluster = map->cluster_id;
		self = map->self;
		authority = map->authority;
		concord_peer_set_local_name(NameStr(map->self_name));
		if (map->epoch != map_epoch)
			concord_contacts_sync(map);
		map_epoch = map->epoch;
		known = concord_configuration_read(&config);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(ConcordTurnContext);
	if (known && config.version > current.version)
		adopt(&config);
	if (member && current.version == 0)
		concord_quorum_ask_config();
	return member;
}

static void
give_up(ConcordTask *task)
{
	if (task->running)
	{
		(void) concord_proposal_give_up(&task->proposal);
		return;
	}
	/* it never began: nothing has happened */
	task->proposal.result = CONCORD_RESULT_FAILED;
	task->proposal.phase = CONCORD_DONE;
}

static int64
serve_tasks(void)
{
	int64		now = concord_quorum_ms();
	int64		next = PG_INT64_MAX;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &running)
	{
		ConcordTask *task = dlist_container(ConcordTask, node, iter.cur);

		if (task->proposal.phase != CONCORD_DONE && task->deadline <= now)
			give_up(task);
		if (task->proposal.phase != CONCORD_DONE && task->retry_at <= now)
		{
			if (!task->backing_off)
				concord_quorum_ask_config();
			if (task->proposal.phase == CONCORD_OUTDATED)
				task->retry_at = now + SILENCE_MS;
			else
				handle(task, concord_proposal_retry(&task->proposal));
		}
		if (task->proposal.phase == CONCORD_DONE)
		{
			finish(task);
			continue;
		}
		next = Min(next, Min(task->deadline, task->retry_at));
	}
	return next;
}

/* Lets those begin whose turn it is. */
static int64
serve_pending(void)
{
	int64		now = concord_quorum_ms();
	int64		next = PG_INT64_MAX;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pending)
	{
		ConcordTask *task = dlist_container(ConcordTask, node, iter.cur);

		if (task->deadline <= now)
		{
			give_up(task);
			finish(task);
		}
		else if (task->seat->running == NULL && current.version > 0)
			start_task(task);
		else
			next = Min(next, task->deadline);
	}
	return next;
}

int64
concord_quorum_turn(void)
{
	int64		next = PG_INT64_MAX;
	int64		now = concord_quorum_ms();
	int64		wish;
	dlist_iter	iter;

	Assert(!IsTransactionState());
	MemoryContextReset(ConcordTurnContext);
	MemoryContextSwitchTo(ConcordTurnContext);

	if (transfer.active && transfer.deadline <= now)
		end_transfer(false);
	if (transfer.active)
		next = Min(next, transfer.deadline);

	concord_contacts_advance();
	wish = serve_tasks();
	next = Min(next, wish);
	wish = serve_pending();
	next = Min(next, wish);
	wish = concord_contacts_serve();
	next = Min(next, wish);

	/* what an answer has finished meanwhile is called back at once */
	dlist_foreach(iter, &running)
		if (dlist_container(ConcordTask, node, iter.cur)->proposal.phase == CONCORD_DONE)
			return now;
	return next;
}

void
concord_quorum_begin(MemoryContext context)
{
	HASHCTL		ctl = {
		.keysize = CONCORD_REGISTER_NAME_MAX + 2,
		.entrysize = sizeof(Seat),
		.hcxt = context
	};

	ConcordQuorumContext = context;
	ConcordTurnContext = AllocSetContextCreate(context, "concord registrar turn",
											   ALLOCSET_DEFAULT_SIZES);
	seats = hash_create("concord registers", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	concord_contacts_begin();
	dlist_init(&running);
	dlist_init(&pending);
	dlist_init(&free_seats);
	MemoryContextSwitchTo(ConcordTurnContext);
}
