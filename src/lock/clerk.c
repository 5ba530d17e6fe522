/*
 * clerk.c
 *		Carries the requests of this node's sessions into the registers of their locks.
 *
 * WHAT: for each lock that a session of this database asks for, waits for or holds, the registrar
 * remembers what its register said last, and writes what is to be changed by compare-and-set: all
 * requests and releases of this node's sessions on one lock in one write.  core/lock.h decides what
 * a step changes; what became of each request is said in the shared entries (table.h).
 *
 * STATES of a lock here
 *		at rest --work: something to change--> writing --OK, MISMATCH--> at rest, known
 *		at rest --work: somebody must know how it stands now--> reading --OK--> at rest, known
 *		writing --UNKNOWN--> at rest, its requests unsure; FAILED--> at rest, tried again
 *
 * INVARIANTS
 * R1 One write or read at a time is under way on a lock.
 * R2 What a session is told follows from a value that is known to be chosen, and, if it is that
 *	  nothing was changed, one read after the session had asked.
 * R3 HELD is told only while the lease under which it was asked for is valid (L11); everything
 *	  under a lease that is over is asked for again, or lost.
 * R4 An entry is freed when its request is not in a value written or read after its last unsure
 *	  write (UNSURE in core/lock.h).
 * R5 Who has become a holder by a write is woken: by a latch here, by one message elsewhere, with
 *	  the value, so that it needs no read.  The message may be lost: who waits reads again each
 *	  POLL_MS.
 * R6 Nothing is concluded from a value that is a guess: before the first read or write of a
 *	  registrar that has found entries (take_over), nobody has lost what he holds.
 *
 * What a crash leaves: of the registrar alone: the entries; the next one takes every one of them
 * for unsure.  Of the server: requests under a lease that its next start, or another node, ends.
 */
#include "postgres.h"

#include "lock/clerk.h"
#include "lock/table.h"
#include "miscadmin.h"
#include "quorum/engine.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define POLL_MS 1000
#define RETRY_MS 100
#define DAMAGED_MS 5000
#define IDLE_MS 60000			/* after which a free lock's register is deleted */
#define TIDY_MS 1000			/* how often such are looked for */
#define OPERATION_MS 5000
#define NOTICE_MS 5000
#define NEWS_SQL "SELECT concord._lock_news($1::pg_catalog.bytea)"

/* A request of a session of ours */
typedef struct Local
{
	dlist_node	node;			/* of its lock's, in the order in which they came */
	struct LockName *name;
	int			index;			/* of the shared entry */
	ConcordLockRequest me;		/* lease 0: never written */
	uint64		arrived;		/* R2 */
	bool		unsure;			/* R4 */
	bool		attempted;		/* by the write under way */
	bool		gone;			/* LOST, and released */
	ConcordLockResult result;	/* of the last step */

	/* the shared entry's, as last looked at */
	ConcordHoldingState state;
	bool		may_wait;
	bool		upgrade;
} Local;

typedef struct LockName
{
	char		key[CONCORD_NAME_MAX + 1];	/* length, and bytes */
	MemoryContext context;
	ConcordLockState state;		/* last known to be chosen */
	uint64		seen;			/* R2: when that was begun to be read or written; 0: a guess */
	bool		busy;
	uint64		begun;			/* the operation under way */
	ConcordLockState next;		/* what is being written */
	bool		again;			/* to be worked on when it is at rest */
	int64		retry_at;
	int64		poll_at;
	int64		idle_at;		/* without locals since; 0 = it has some */
	bool		waiting;		/* some local is asked for or waits */
	dlist_head	locals;
} LockName;

static MemoryContext clerk_context;
static HTAB *names;
static Local **locals;			/* by the index of the shared entry */
static int *to_wake;			/* procnos of sessions, until the shared table's lock is released */
static int	nto_wake;
static uint64 sequence;			/* of what happens here */
static bool begun = false;
static uint64 seen_changes;		/* of the keeper */
static int64 limit_us;			/* the first end of a lock's own limit, or before it */
static int	nlocals;
static int64 walk_at;			/* when a name wants to be worked on by itself, or before it */

static void work(LockName *name);

/* ---------------------------------------------------------------- names */

static const char *
text_of(const LockName *name, size_t *len)
{
	*len = (unsigned char) name->key[0];
	return name->key + 1;
}

static LockName *
find_name(const char *text, size_t len, bool create)
{
	char		key[CONCORD_NAME_MAX + 1] = {0};
	bool		exists;
	LockName   *name;

	Assert(len > 0 && len <= CONCORD_NAME_MAX && CONCORD_NAME_MAX <= 255);
	key[0] = (char) len;
	memcpy(key + 1, text, len);
	name = hash_search(names, key, create ? HASH_ENTER : HASH_FIND, &exists);
	if (name == NULL || exists)
		return name;
	memset((char *) name + sizeof(name->key), 0, sizeof(LockName) - sizeof(name->key));
	name->context = AllocSetContextCreate(clerk_context, "concord lock", ALLOCSET_SMALL_SIZES);
	dlist_init(&name->locals);
	concord_lock_init(&name->state, NULL, 0);
	return name;
}

static void
drop_name(LockName *name)
{
	MemoryContextDelete(name->context);
	hash_search(names, name->key, HASH_REMOVE, NULL);
}

static int
count_locals(LockName *name)
{
	dlist_iter	iter;
	int			n = 0;

	dlist_foreach(iter, &name->locals)
		n++;
	return n;
}

/* Room for the requests of a value of that length, and more. */
static ConcordLockRequest *
make_room(MemoryContext context, size_t len, int more, int *max)
{
	*max = len > CONCORD_LOCK_HEAD ? (int) ((len - CONCORD_LOCK_HEAD) / CONCORD_LOCK_ENTRY) : 0;
	*max = Min(*max + more, CONCORD_LOCK_REQUESTS);
	return MemoryContextAlloc(context, Max(*max, 1) * sizeof(ConcordLockRequest));
}

/* Takes over a chosen value.  False if nobody of ours has written it. */
static bool
know(LockName *name, const ConcordValue *value)
{
	ConcordLockState state;
	ConcordLockRequest *requests;
	dlist_iter	iter;
	int			max;

	if (name->seen != 0 && value->version < name->state.version)
		return true;			/* older than what is known */
	requests = make_room(name->context, value->len, 0, &max);
	concord_lock_init(&state, requests, max);
	if (value->kind == CONCORD_VALUE_SET &&
		!concord_lock_decode(&state, requests, max, value->data, value->len, value->version))
	{
		pfree(requests);
		return false;
	}
	if (name->state.request != NULL)
		pfree(name->state.request);
	name->state = state;
	/* what the last step came to was said of another value (R2) */
	dlist_foreach(iter, &name->locals)
		dlist_container(Local, node, iter.cur)->result = CONCORD_LOCK_HELD;
	return true;
}

/* ---------------------------------------------------------------- entries */

static Local *
add_local(int index, const ConcordHolding *entry, bool unsure)
{
	LockName   *name = find_name(entry->name, (size_t) entry->name_len, true);
	Local	   *local = MemoryContextAllocZero(clerk_context, sizeof(Local));

	local->name = name;
	local->index = index;
	local->me.serial = entry->serial;
	local->me.lease = entry->lease;
	local->me.node = concord_quorum_self();
	local->me.pid = entry->pid;
	local->me.since = entry->asked_at;
	local->me.mode = entry->mode;
	local->arrived = ++sequence;
	local->unsure = unsure && entry->lease != 0;
	dlist_push_tail(&name->locals, &local->node);
	name->idle_at = 0;
	locals[index] = local;
	nlocals++;
	return local;
}

/* Whoever is woken looks at his entry at once: so after the shared table's lock was released. */
static void
wake_later(int procno)
{
	if (procno < 0)
		return;
	if (nto_wake < ConcordHoldings->size)
		to_wake[nto_wake++] = procno;
	else
		SetLatch(concord_procno_latch(procno));
}

static void
wake_all(void)
{
	for (int i = 0; i < nto_wake; i++)
		SetLatch(concord_procno_latch(to_wake[i]));
	nto_wake = 0;
}

/* The shared table's lock is held exclusively. */
static void
free_entry(Local *local, ConcordHolding *entry)
{
	int			procno = entry->pid != 0 ? entry->procno : -1;

	entry->state = CONCORD_HOLDING_FREE;
	entry->pid = 0;
	if (entry->queued)
		dlist_delete(&entry->node);
	entry->queued = false;
	dlist_push_head(&ConcordHoldings->free, &entry->node);
	locals[local->index] = NULL;
	nlocals--;
	dlist_delete(&local->node);
	pfree(local);
	wake_later(procno);
}

static void
wake(const ConcordHolding *entry)
{
	wake_later(entry->pid != 0 ? entry->procno : -1);
}

/* Takes what sessions have changed, and what other nodes have said. */
static void
take_queue(void)
{
	ConcordHoldingDatabase *database;
	ConcordLockNews *news = NULL;
	int			nnews = 0;
	bool		lost = false;
	List	   *changed = NIL;
	ListCell   *lc;

	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	database = concord_holding_database(MyDatabaseId, true);
	while (database != NULL && !dlist_is_empty(&database->queue))
	{
		ConcordHolding *entry = dlist_container(ConcordHolding, node,
												dlist_pop_head_node(&database->queue));
		int			index = (int) (entry - ConcordHoldings->entries);
		Local	   *local = locals[index];

		entry->queued = false;
		if (local == NULL)
			local = add_local(index, entry, false);
		local->arrived = ++sequence;
		changed = list_append_unique_ptr(changed, local->name);
	}
	if (database != NULL && (database->nnews > 0 || database->news_lost))
	{
		nnews = database->nnews;
		lost = database->news_lost;
		news = palloc(Max(nnews, 1) * sizeof(ConcordLockNews));
		memcpy(news, database->news, nnews * sizeof(ConcordLockNews));
		database->nnews = 0;
		database->news_lost = false;
	}
	LWLockRelease(ConcordHoldings->lock);

	for (int i = 0; i < nnews; i++)
	{
		LockName   *name = find_name(news[i].name, (size_t) news[i].name_len, false);
		ConcordValue value = {
			.kind = CONCORD_VALUE_SET,
			.len = (uint32) news[i].len,
			.version = news[i].version,
			.data = news[i].value
		};

		if (name == NULL)
			continue;
		if (news[i].version == 0 || (name->seen != 0 && !know(name, &value)))
			name->poll_at = 0;
		changed = list_append_unique_ptr(changed, name);
	}
	if (lost)
	{
		HASH_SEQ_STATUS scan;
		LockName   *name;

		hash_seq_init(&scan, names);
		while ((name = hash_seq_search(&scan)) != NULL)
			name->poll_at = 0;
		walk_at = 0;
	}
	foreach(lc, changed)
	{
		LockName   *name = lfirst(lc);

		name->again = true;
		work(name);
	}
}

/* ---------------------------------------------------------------- what became of requests */

static void
put_blockers(const ConcordLockState *state, int place, ConcordHolding *entry)
{
	entry->nblockers = 0;
	for (int i = 0; i < place && entry->nblockers < CONCORD_BLOCKERS; i++)
	{
		const ConcordLockRequest *other = &state->request[i];

		if (other->mode == CONCORD_LOCK_SHARED && entry->mode == CONCORD_LOCK_SHARED)
			continue;
		entry->blockers[entry->nblockers].node = other->node;
		entry->blockers[entry->nblockers++].pid = other->pid;
	}
}

static void
grant(LockName *name, Local *local, ConcordHolding *entry)
{
	if (!concord_keeper_valid(local->me.lease))	/* R3 */
		return;
	entry->state = CONCORD_HOLDING_HELD;
	entry->fence = concord_lock_fence(&name->state);
	entry->held_at = GetCurrentTimestamp();
	entry->until_us = entry->hold_us > 0 ? concord_copy_clock_us() + entry->hold_us : 0;
	if (entry->until_us > 0)
		limit_us = Min(limit_us, entry->until_us);
	entry->nblockers = 0;
	local->state = entry->state;
	wake(entry);
}

static void
lose_entry(Local *local, ConcordHolding *entry)
{
	concord_holding_lose(entry);
	local->state = entry->state;
	SetLatch(MyLatch);			/* it is in the queue: to be taken out of the register */
}

/* It asks anew, under the lease of then. */
static void
ask_again(Local *local, ConcordHolding *entry)
{
	entry->state = CONCORD_HOLDING_ASKED;
	entry->asked_us = concord_copy_clock_us();
	entry->lease = 0;
	local->state = entry->state;
	local->me.lease = 0;
	local->unsure = false;
	local->arrived = ++sequence;
	local->name->again = true;
	wake(entry);				/* from now on it waits for an answer, not for its turn */
}

static void
refuse(Local *local, ConcordHolding *entry)
{
	entry->state = CONCORD_HOLDING_REFUSED;
	entry->result = local->result;
	local->state = entry->state;
	if (!local->unsure)
		local->me.lease = entry->lease = 0; /* it was never written, and is freed without a read */
	wake(entry);
}

static void
settle_asked(LockName *name, Local *local, ConcordHolding *entry, int place)
{
	if (place >= 0 && place < name->state.nholders)
		grant(name, local, entry);
	else if (place >= 0)
	{
		if (entry->state == CONCORD_HOLDING_ASKED)
			wake(entry);		/* from now on it waits */
		entry->state = CONCORD_HOLDING_WAITING;
		entry->waited = true;
		local->state = entry->state;
		put_blockers(&name->state, place, entry);
	}
	else if (entry->state == CONCORD_HOLDING_WAITING ||
			 (local->me.lease != 0 && concord_keeper_over(local->me.lease)))
		ask_again(local, entry);
	else if (local->result >= CONCORD_LOCK_BUSY && name->seen > local->arrived)	/* R2 */
		refuse(local, entry);
}

static void
settle_held(LockName *name, Local *local, ConcordHolding *entry, int place)
{
	if (place < 0 || place >= name->state.nholders)
	{
		lose_entry(local, entry);
		return;
	}
	if (!entry->upgrade)
		return;
	if (name->state.request[place].mode == CONCORD_LOCK_EXCLUSIVE)
	{
		entry->mode = local->me.mode = CONCORD_LOCK_EXCLUSIVE;
		entry->fence = concord_lock_fence(&name->state);
		entry->result = CONCORD_LOCK_HELD;
	}
	else if (local->result >= CONCORD_LOCK_BUSY && name->seen > local->arrived)
		entry->result = local->result;
	else
		return;
	entry->upgrade = local->upgrade = false;
	wake(entry);
}

/* Says in the entries what the known value means for them. */
static void
settle(LockName *name)
{
	dlist_mutable_iter iter;

	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	dlist_foreach_modify(iter, &name->locals)
	{
		Local	   *local = dlist_container(Local, node, iter.cur);
		ConcordHolding *entry = &ConcordHoldings->entries[local->index];
		int			place = local->me.lease != 0 ?
			concord_lock_find(&name->state, &local->me) : -1;

		/* R6; what has no lease was never written */
		if (name->seen == 0 && local->me.lease != 0 && !concord_keeper_over(local->me.lease))
			continue;
		switch (entry->state)
		{
			case CONCORD_HOLDING_ASKED:
			case CONCORD_HOLDING_WAITING:
				settle_asked(name, local, entry, place);
				break;
			case CONCORD_HOLDING_HELD:
				settle_held(name, local, entry, place);
				break;
			case CONCORD_HOLDING_LEAVING:
				/* R4; what belongs to a lease that is over cannot come back as a holder */
				if (local->me.lease == 0 || (place < 0 && !local->unsure) ||
					concord_keeper_over(local->me.lease))
					free_entry(local, entry);
				break;
			case CONCORD_HOLDING_LOST:
				local->gone = place < 0 && !local->unsure;
				break;
			case CONCORD_HOLDING_REFUSED:
			case CONCORD_HOLDING_FREE:
				break;
		}
	}
	LWLockRelease(ConcordHoldings->lock);
	wake_all();
}

/* ---------------------------------------------------------------- telling other nodes */

/* R5 */
static void
tell(const LockName *name, int node, const void *value, size_t value_len)
{
	size_t		name_len;
	const char *text = text_of(name, &name_len);
	size_t		size = 16 + name_len + value_len;
	unsigned char *bytes = palloc(size);
	ConcordWriter w = {bytes, size, 0, false};
	char	   *hex;
	const char *params[1];

	concord_put_name(&w, text, name_len);
	concord_put(&w, (uint64) (value_len <= CONCORD_NEWS_BYTES ? name->state.version : 0), 8);
	if (value_len <= CONCORD_NEWS_BYTES)
		concord_put_bytes(&w, value, value_len);
	hex = palloc(2 * w.len + 3);
	memcpy(hex, "\\x", 2);
	hex[2 + hex_encode((char *) bytes, w.len, hex + 2)] = '\0';
	params[0] = hex;
	concord_quorum_call(node, NEWS_SQL, 1, params, NOTICE_MS, NULL, NULL);
}

static void
tell_fresh(const LockName *name)
{
	size_t		size = CONCORD_LOCK_SIZE(name->state.n);
	void	   *bytes = NULL;
	size_t		len = 0;

	for (int i = 0; i < name->state.nholders; i++)
	{
		const ConcordLockRequest *holder = &name->state.request[i];
		bool		told = false;

		if (!holder->fresh || holder->node == concord_quorum_self())
			continue;
		for (int k = 0; k < i; k++)
			told = told || (name->state.request[k].fresh &&
							name->state.request[k].node == holder->node);
		if (told)
			continue;
		if (bytes == NULL)
		{
			/* encode() counts the age of the fence from the version that is replaced */
			ConcordLockState before = name->state;

			before.version--;
			bytes = palloc(size);
			len = concord_lock_encode(&before, bytes, size);
		}
		tell(name, holder->node, bytes, len);
	}
}

/* ---------------------------------------------------------------- operations */

static void
was_read(const ConcordTaskOutcome *outcome, void *arg)
{
	LockName   *name = arg;

	name->busy = false;
	SetLatch(MyLatch);			/* a turn finds out when the next one is due */
	if (outcome->result != CONCORD_RESULT_OK)
		name->retry_at = concord_quorum_ms() + RETRY_MS;
	else if (!know(name, &outcome->value))
		name->retry_at = concord_quorum_ms() + DAMAGED_MS;
	else
	{
		name->seen = name->begun;
		settle(name);
	}
	name->again = true;
	work(name);
}

static void
was_written(const ConcordTaskOutcome *outcome, void *arg)
{
	LockName   *name = arg;
	bool		unknown = outcome->result == CONCORD_RESULT_UNKNOWN;
	dlist_iter	iter;

	name->busy = false;
	SetLatch(MyLatch);
	dlist_foreach(iter, &name->locals)
	{
		Local	   *local = dlist_container(Local, node, iter.cur);

		if (local->attempted && (unknown || outcome->result == CONCORD_RESULT_OK))
			local->unsure = unknown;
		local->attempted = false;
	}
	if (outcome->result == CONCORD_RESULT_OK)
	{
		if (name->state.version < outcome->value.version)
		{
			if (name->state.request != NULL)
				pfree(name->state.request);
			name->state = name->next;
			concord_lock_written(&name->state, outcome->value.version);
		}
		else
			pfree(name->next.request);	/* news came, of what was written after it */
		name->seen = name->begun;
		settle(name);
		tell_fresh(name);
	}
	else
	{
		pfree(name->next.request);
		if (unknown)
			name->retry_at = 0;	/* others were faster: their value is learned at once */
		else if (outcome->result != CONCORD_RESULT_MISMATCH)
			name->retry_at = concord_quorum_ms() + RETRY_MS;
		else if (!know(name, &outcome->value))
			name->retry_at = concord_quorum_ms() + DAMAGED_MS;
		else
		{
			name->seen = name->begun;
			settle(name);
		}
	}
	name->next.request = NULL;
	name->again = true;
	work(name);
}

static void
register_name(const LockName *name, char full[CONCORD_NAME_MAX + 8], size_t *len)
{
	const char *text = text_of(name, len);

	memcpy(full, CONCORD_PREFIX_LOCK, 2);
	memcpy(full + 2, text, *len);
	*len += 2;
}

static void
start_read(LockName *name)
{
	char		full[CONCORD_NAME_MAX + 8];
	size_t		len;

	register_name(name, full, &len);
	name->busy = true;
	name->begun = ++sequence;
	name->poll_at = concord_quorum_ms() + POLL_MS;
	concord_quorum_start(full, len, CONCORD_READ, 0, NULL, 0, OPERATION_MS, was_read, name);
}

static void
start_write(LockName *name)
{
	size_t		size = CONCORD_LOCK_SIZE(name->next.n);
	void	   *bytes = palloc_extended(size, MCXT_ALLOC_HUGE);
	size_t		len = concord_lock_encode(&name->next, bytes, size);
	char		full[CONCORD_NAME_MAX + 8];
	size_t		name_len;

	if (len == 0)
		elog(ERROR, "could not encode a lock");
	register_name(name, full, &name_len);
	name->busy = true;
	name->begun = ++sequence;
	name->poll_at = concord_quorum_ms() + POLL_MS;
	concord_quorum_start(full, name_len, CONCORD_WRITE, name->state.version, bytes, (uint32) len,
						 OPERATION_MS, was_written, name);
	pfree(bytes);
}

static void
was_deleted(const ConcordTaskOutcome *outcome, void *arg)
{
	LockName   *name = arg;

	(void) outcome;
	name->busy = false;
	if (dlist_is_empty(&name->locals))
	{
		drop_name(name);
		return;
	}
	name->seen = 0;
	concord_lock_init(&name->state, NULL, 0);
	name->again = true;
	work(name);
}

/* Nobody here has wanted it for a while: if nobody anywhere does, its register goes (L6). */
static void
let_go(LockName *name)
{
	char		full[CONCORD_NAME_MAX + 8];
	size_t		len;

	if (name->seen == 0 || name->state.version == 0 || !concord_lock_idle(&name->state))
	{
		drop_name(name);
		return;
	}
	register_name(name, full, &len);
	name->busy = true;
	concord_quorum_start(full, len, CONCORD_DELETE, name->state.version, NULL, 0, OPERATION_MS,
						 was_deleted, name);
}

/* ---------------------------------------------------------------- steps */

static void
look_at_entries(LockName *name)
{
	dlist_iter	iter;

	name->waiting = false;
	LWLockAcquire(ConcordHoldings->lock, LW_SHARED);
	dlist_foreach(iter, &name->locals)
	{
		Local	   *local = dlist_container(Local, node, iter.cur);
		const ConcordHolding *entry = &ConcordHoldings->entries[local->index];

		local->state = entry->state;
		local->may_wait = entry->may_wait;
		local->upgrade = entry->upgrade;
		name->waiting = name->waiting || entry->state == CONCORD_HOLDING_ASKED ||
			entry->state == CONCORD_HOLDING_WAITING;
	}
	LWLockRelease(ConcordHoldings->lock);
}

/* The lease under which a request is written, for whoever looks at the entry. */
static void
give_lease(Local *local, uint64 lease)
{
	local->me.lease = lease;
	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	ConcordHoldings->entries[local->index].lease = lease;
	LWLockRelease(ConcordHoldings->lock);
}

static void
step_of(ConcordLockState *next, Local *local)
{
	uint64		lease;

	switch (local->state)
	{
		case CONCORD_HOLDING_ASKED:
			lease = concord_keeper_lease();
			if (local->me.lease == 0 && lease != 0)
				give_lease(local, lease);
			if (local->me.lease == 0)
				break;			/* the keeper's change brings us here again */
			local->result = concord_lock_request(next, &local->me, local->may_wait);
			local->attempted = true;
			break;
		case CONCORD_HOLDING_HELD:
			if (local->upgrade)
			{
				local->result = concord_lock_upgrade(next, &local->me);
				local->attempted = true;
			}
			break;
		case CONCORD_HOLDING_LEAVING:
		case CONCORD_HOLDING_LOST:
			if (local->me.lease != 0 && !local->gone && !concord_keeper_over(local->me.lease))
			{
				(void) concord_lock_release(next, &local->me, local->unsure);
				local->attempted = true;
			}
			break;
		default:
			break;
	}
}

static bool
remembered(LockName *name, const ConcordLockRequest *request)
{
	dlist_iter	iter;

	dlist_foreach(iter, &name->locals)
		if (dlist_container(Local, node, iter.cur)->me.serial == request->serial)
			return true;
	return false;
}

/* Takes out what belongs to leases that are over, and what was ours and nobody remembers. */
static void
clean(LockName *name, ConcordLockState *next)
{
	uint64		lease = concord_keeper_lease();

	for (int i = 0; i < next->n;)
	{
		ConcordLockRequest request = next->request[i];
		const ConcordLeaseValue *value = concord_keeper_watch(request.node);

		if (value != NULL && concord_lease_judge(value, request.lease) == CONCORD_LEASE_OVER &&
			concord_lock_drop(next, request.node, value) > 0)
			i = 0;
		else if (request.node == concord_quorum_self() && request.lease == lease &&
				 !remembered(name, &request) && concord_lock_release(next, &request, false))
			i = 0;
		else
			i++;
	}
}

/* Must somebody know how it stands now? */
static bool
must_read(LockName *name, int64 now)
{
	dlist_iter	iter;

	dlist_foreach(iter, &name->locals)
	{
		const Local *local = dlist_container(Local, node, iter.cur);

		if (local->state == CONCORD_HOLDING_WAITING && name->poll_at <= now)
			return true;
		if (local->me.lease == 0 || local->arrived < name->seen)
			continue;
		if (name->seen == 0)
			return true;		/* R6 */
		if (local->state == CONCORD_HOLDING_ASKED || local->upgrade ||
			local->state == CONCORD_HOLDING_LEAVING ||
			(local->state == CONCORD_HOLDING_LOST && !local->gone))
			return true;
	}
	return false;
}

/* When is it to be looked at, if nothing happens?  (The end of an operation is something.) */
static void
look_again(LockName *name, int64 now)
{
	int64		at = PG_INT64_MAX;

	if (name->busy)
		return;
	if (dlist_is_empty(&name->locals))
	{
		if (name->idle_at == 0)
			name->idle_at = now;
		at = name->idle_at + IDLE_MS + TIDY_MS;
		at -= at % TIDY_MS;		/* many in one walk */
	}
	else if (name->again)
		at = name->retry_at;
	else if (name->waiting)
		at = name->poll_at;
	walk_at = Min(walk_at, Max(at, now + 1));
}

static void
work_on(LockName *name, int64 now)
{
	dlist_iter	iter;
	int			max;

	look_at_entries(name);
	name->next = name->state;
	name->next.request = make_room(name->context, CONCORD_LOCK_SIZE(name->state.n),
								   count_locals(name), &max);
	name->next.max = max;
	name->next.changed = false;
	if (name->state.n > 0)
		memcpy(name->next.request, name->state.request,
			   name->state.n * sizeof(ConcordLockRequest));
	dlist_foreach(iter, &name->locals)
		step_of(&name->next, dlist_container(Local, node, iter.cur));
	if (name->waiting)
		clean(name, &name->next);
	if (name->next.changed)
	{
		start_write(name);
		return;
	}
	pfree(name->next.request);
	name->next.request = NULL;
	dlist_foreach(iter, &name->locals)
		dlist_container(Local, node, iter.cur)->attempted = false;
	if (must_read(name, now))
		start_read(name);
	else
		settle(name);
}

static void
work(LockName *name)
{
	int64		now = concord_quorum_ms();
	bool		ripe = !name->busy && name->again && name->retry_at <= now; /* R1 */
	bool		idle = dlist_is_empty(&name->locals);

	if (ripe)
		name->again = false;
	if (ripe && idle && name->idle_at != 0 && now - name->idle_at >= IDLE_MS)
	{
		let_go(name);			/* it may be gone */
		return;
	}
	if (ripe && !idle)
		work_on(name, now);
	look_again(name, now);
}

/* ---------------------------------------------------------------- the turn */

/* The registrar begins: what another one has left. */
static void
take_over(void)
{
	begun = true;
	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ConcordHoldings->size; i++)
	{
		ConcordHolding *entry = &ConcordHoldings->entries[i];

		if (entry->dboid != MyDatabaseId || entry->state == CONCORD_HOLDING_FREE)
			continue;
		add_local(i, entry, true)->name->again = true;
	}
	LWLockRelease(ConcordHoldings->lock);
}

/* Locks whose own limit is over are given back; the session finds them lost. */
static void
end_limited(void)
{
	int64		now_us = concord_copy_clock_us();

	if (now_us < limit_us)
		return;
	limit_us = PG_INT64_MAX;
	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ConcordHoldings->size; i++)
	{
		ConcordHolding *entry = &ConcordHoldings->entries[i];

		if (entry->dboid != MyDatabaseId || entry->state != CONCORD_HOLDING_HELD ||
			entry->until_us == 0)
			continue;
		if (entry->until_us > now_us)
			limit_us = Min(limit_us, entry->until_us);
		else if (locals[i] != NULL)
		{
			lose_entry(locals[i], entry);
			concord_holding_queue(entry);
		}
	}
	LWLockRelease(ConcordHoldings->lock);
	wake_all();
}

/* Works on all names whose time has come.  What sessions, nodes and answers say is done at once. */
static void
walk(int64 now)
{
	HASH_SEQ_STATUS scan;
	LockName   *name;

	walk_at = PG_INT64_MAX;
	hash_seq_init(&scan, names);
	while ((name = hash_seq_search(&scan)) != NULL)
	{
		if (concord_keeper_changes() != seen_changes || (name->waiting && name->poll_at <= now) ||
			(dlist_is_empty(&name->locals) && name->idle_at != 0 &&
			 now - name->idle_at >= IDLE_MS))
			name->again = true;
		work(name);
	}
}

int64
concord_clerk_turn(void)
{
	int64		now = concord_quorum_ms();
	int64		next;
	int64		wish;

	if (concord_quorum_self() == 0)
		return PG_INT64_MAX;	/* the map was not read yet */
	if (!begun)
		take_over();
	end_limited();
	take_queue();
	if (concord_keeper_changes() != seen_changes || walk_at <= now)
		walk(now);
	next = Min(walk_at, limit_us == PG_INT64_MAX ? limit_us : limit_us / 1000 + 1);
	seen_changes = concord_keeper_changes();
	wish = concord_keeper_turn(nlocals > 0);
	next = Min(next, wish);
	return concord_keeper_changes() != seen_changes ? now : next;
}

void
concord_clerk_begin(MemoryContext context)
{
	HASHCTL		ctl = {
		.keysize = CONCORD_NAME_MAX + 1,
		.entrysize = sizeof(LockName),
		.hcxt = context
	};

	clerk_context = context;
	names = hash_create("concord locks", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	locals = MemoryContextAllocZero(context, Max(ConcordHoldings->size, 1) * sizeof(Local *));
	to_wake = MemoryContextAlloc(context, Max(ConcordHoldings->size, 1) * sizeof(int));
	(void) concord_counted(CONCORD_COUNT_LOCKS_LOST);	/* claimed before a lock is held */
	concord_keeper_begin(context);
}
