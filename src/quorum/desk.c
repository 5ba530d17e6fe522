/*
 * desk.c
 *		How sessions hand operations on registers to their database's registrar, see the header.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "quorum/desk.h"
#include "quorum/leftovers.h"
#include "quorum/proposals.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#define INLINE_BYTES 512
#define START_POLL_MS 50
#define TAKEN_POLL_MS 1000

typedef enum PlaceState
{
	PLACE_FREE = 0,
	PLACE_QUEUED,
	PLACE_TAKEN,
	PLACE_ANSWERED
} PlaceState;

typedef struct Place
{
	PlaceState	state;
	uint64		number;			/* E1 */
	Oid			dboid;
	int			pid;
	dlist_node	node;			/* QUEUED: in its registrar's queue */

	ConcordOperation op;
	int64		expected;
	int			timeout_ms;
	size_t		name_len;
	char		name[CONCORD_REGISTER_NAME_MAX];

	ConcordResult result;
	bool		no_majority;
	bool		no_room;		/* for the value's bytes */
	ConcordValue value;			/* its data is below */

	/* of the request, then of the answer */
	uint32		len;
	dsm_handle	segment;		/* E2; DSM_HANDLE_INVALID: the bytes are here */
	bool		pinned;
	char		bytes[INLINE_BYTES];
} Place;

typedef struct Registrar
{
	Oid			dboid;			/* 0 = free */
	int			pid;			/* 0 = not running */
	int			procno;
	dlist_head	queue;			/* of Place */
} Registrar;

typedef struct Desk
{
	LWLock	   *lock;			/* E3 */
	uint64		last_number;
	pg_atomic_uint32 last_proposer;
	Registrar	registrars[CONCORD_MAX_DATABASES];
	Place		places[FLEXIBLE_ARRAY_MEMBER];	/* [MaxBackends] */
} Desk;

static Desk *desk = NULL;
static Registrar *mine = NULL;	/* in the registrar's process */
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* An operation that a session waits for, in the registrar */
typedef struct Asked
{
	int			place;
	uint64		number;
	ConcordOperation op;
	size_t		name_len;
	char		name[FLEXIBLE_ARRAY_MEMBER];
} Asked;

static Size
desk_size(void)
{
	return add_size(offsetof(Desk, places), mul_size(sizeof(Place), MaxBackends));
}

static void
desk_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(desk_size());
	RequestNamedLWLockTranche("pg_concord desk", 1);
}

static void
desk_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	desk = ShmemInitStruct("pg_concord desk", desk_size(), &found);
	if (!found)
	{
		memset(desk, 0, desk_size());
		desk->lock = &(GetNamedLWLockTranche("pg_concord desk"))->lock;
		pg_atomic_init_u32(&desk->last_proposer, 0);
		for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
			dlist_init(&desk->registrars[i].queue);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
concord_desk_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = desk_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = desk_startup;
}

/* A database's entry, which may have no process; NULL if there is none and no room. */
static Registrar *
find_registrar(Oid dboid, bool create)
{
	Registrar  *free_entry = NULL;

	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		Registrar  *entry = &desk->registrars[i];

		if (entry->dboid == dboid)
			return entry;
		if (free_entry == NULL &&
			(!OidIsValid(entry->dboid) || (entry->pid == 0 && dlist_is_empty(&entry->queue))))
			free_entry = entry;
	}
	if (create && free_entry != NULL)
		free_entry->dboid = dboid;
	return create ? free_entry : NULL;
}

bool
concord_desk_poke(Oid dboid)
{
	Registrar  *registrar;
	int			procno = -1;

	LWLockAcquire(desk->lock, LW_SHARED);
	registrar = find_registrar(dboid, false);
	if (registrar != NULL && registrar->pid != 0)
		procno = registrar->procno;
	LWLockRelease(desk->lock);
	if (procno >= 0)
		SetLatch(concord_procno_latch(procno));
	return procno >= 0;
}

int
concord_desk_registrar(Oid dboid)
{
	Registrar  *registrar;
	int			pid = 0;

	LWLockAcquire(desk->lock, LW_SHARED);
	registrar = find_registrar(dboid, false);
	if (registrar != NULL)
		pid = registrar->pid;
	LWLockRelease(desk->lock);
	return pid;
}

uint32
concord_desk_proposer(void)
{
	uint32		number = pg_atomic_add_fetch_u32(&desk->last_proposer, 1);

	/* R1: never twice */
	if (number == 0)
		elog(PANIC, "numbers of proposers are used up");
	return number;
}

/* ---------------------------------------------------------------- values */

static void
put_bytes(Place *place, const void *data, uint32 len, dsm_segment *segment)
{
	place->len = len;
	place->segment = segment != NULL ? dsm_segment_handle(segment) : DSM_HANDLE_INVALID;
	if (segment == NULL && len > 0)
		memcpy(place->bytes, data, len);
}

/* A segment with the bytes if they do not fit into a place, else NULL. */
static dsm_segment *
make_segment(const void *data, uint32 len)
{
	dsm_segment *segment;

	if (len <= INLINE_BYTES)
		return NULL;
	segment = dsm_create(len, 0);
	memcpy(dsm_segment_address(segment), data, len);
	return segment;
}

/* The bytes of a segment, palloc'd; NULL if it is gone. */
static void *
copy_segment(dsm_handle handle, uint32 len)
{
	dsm_segment *segment = dsm_attach(handle);
	void	   *data;

	if (segment == NULL)
		return NULL;
	data = palloc_extended(len, MCXT_ALLOC_HUGE);
	memcpy(data, dsm_segment_address(segment), len);
	dsm_detach(segment);
	return data;
}

/* ---------------------------------------------------------------- the session's side */

static bool exit_registered = false;

/* Gives up what is in this session's place; the desk's lock is not held. */
static void
leave_place(void)
{
	Place	   *place = &desk->places[concord_my_procno()];
	dsm_handle	pinned = DSM_HANDLE_INVALID;

	LWLockAcquire(desk->lock, LW_EXCLUSIVE);
	if (place->pid == MyProcPid)
	{
		if (place->state == PLACE_QUEUED)
			dlist_delete(&place->node);
		if (place->pinned)
			pinned = place->segment;
		place->state = PLACE_FREE;
		place->pinned = false;
		place->number = 0;		/* E1 */
	}
	LWLockRelease(desk->lock);
	if (pinned != DSM_HANDLE_INVALID)
		dsm_unpin_segment(pinned);
}

static void
leave_at_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	leave_place();
}

void
concord_desk_no_registrar(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the registrar of this database does not run"),
			 errdetail("It is the process that keeps registers and locks for all sessions."),
			 errhint("concord.check_cluster() tells why.")));
}

/* Puts the request down; returns its registrar's procno, or -1 while there is none. */
static int
put_request(const ConcordDeskRequest *request, dsm_segment *segment)
{
	Place	   *place = &desk->places[concord_my_procno()];
	Registrar  *registrar;
	int			procno = -1;

	LWLockAcquire(desk->lock, LW_EXCLUSIVE);
	registrar = find_registrar(MyDatabaseId, true);
	if (registrar == NULL)
	{
		LWLockRelease(desk->lock);
		concord_desk_no_registrar();
	}
	place->number = ++desk->last_number;
	place->dboid = MyDatabaseId;
	place->pid = MyProcPid;
	place->op = request->op;
	place->expected = request->expected;
	place->timeout_ms = request->timeout_ms;
	place->name_len = request->name_len;
	memcpy(place->name, request->name, request->name_len);
	place->pinned = false;
	put_bytes(place, request->data, request->len, segment);
	place->state = PLACE_QUEUED;
	dlist_push_tail(&registrar->queue, &place->node);
	if (registrar->pid != 0)
		procno = registrar->procno;
	LWLockRelease(desk->lock);
	return procno;
}

/* Has it been answered? *taken: a registrar works on it */
static bool
look_at_place(const Place *place, bool *taken)
{
	bool		answered;

	LWLockAcquire(desk->lock, LW_SHARED);
	answered = place->state == PLACE_ANSWERED;
	*taken = place->state == PLACE_TAKEN;
	LWLockRelease(desk->lock);
	return answered;
}

/* Takes back what no registrar has taken: then nothing has happened.  False if one has. */
static bool
withdraw(Place *place)
{
	bool		queued;

	LWLockAcquire(desk->lock, LW_EXCLUSIVE);
	queued = place->state == PLACE_QUEUED;
	if (queued)
	{
		dlist_delete(&place->node);
		place->state = PLACE_FREE;
	}
	LWLockRelease(desk->lock);
	return queued;
}

/* Returns whether there was one (E5). */
static bool
await_answer(Place *place, int procno)
{
	int64		asked = concord_quorum_ms();
	int64		untaken = asked;	/* since then, or taken */
	bool		taken = false;

	if (procno >= 0)
		SetLatch(concord_procno_latch(procno));
	else
		concord_poke_worker(MyDatabaseId);
	while (!look_at_place(place, &taken))
	{
		int64		now = concord_quorum_ms();

		if (taken)
			untaken = now;
		if (now - untaken > concord_connect_timeout_ms && withdraw(place))
			concord_desk_no_registrar();
		if (now - asked > (int64) place->timeout_ms + concord_connect_timeout_ms)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
						 taken ? TAKEN_POLL_MS : START_POLL_MS,
						 concord_wait_event("ConcordRegister"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (!taken && concord_desk_registrar(MyDatabaseId) == 0)
			concord_poke_worker(MyDatabaseId);
	}
	return true;
}

/* How what nobody answers has ended */
static ConcordResult
unanswered(ConcordOperation op)
{
	return op == CONCORD_READ ? CONCORD_RESULT_FAILED : CONCORD_RESULT_UNKNOWN;
}

static void
take_answer(Place *place, ConcordDeskAnswer *answer)
{
	char		bytes[INLINE_BYTES];
	dsm_handle	segment;
	bool		no_room;

	LWLockAcquire(desk->lock, LW_SHARED);
	no_room = place->no_room;
	answer->result = place->result;
	answer->no_majority = place->no_majority;
	answer->value = place->value;
	segment = place->segment;
	if (segment == DSM_HANDLE_INVALID)
		memcpy(bytes, place->bytes, place->len);
	LWLockRelease(desk->lock);

	if (no_room)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("there is no shared memory for the value of the register"),
				 errdetail("It has %u bytes.", answer->value.len),
				 errhint("See max_connections, which limits the number of segments, and the room in /dev/shm.")));
	answer->value.data = NULL;
	if (answer->value.len > 0 && segment == DSM_HANDLE_INVALID)
	{
		void	   *copy = palloc(answer->value.len);

		memcpy(copy, bytes, answer->value.len);
		answer->value.data = copy;
	}
	else if (answer->value.len > 0)
	{
		answer->value.data = copy_segment(segment, answer->value.len);
		if (answer->value.data == NULL)
			elog(ERROR, "the answer of the registrar is gone");
	}
}

void
concord_desk_ask(const ConcordDeskRequest *request, ConcordDeskAnswer *answer)
{
	Place	   *place = &desk->places[concord_my_procno()];
	dsm_segment *volatile segment;

	concord_require_preload();
	Assert(concord_my_procno() < MaxBackends);
	Assert(request->name_len <= CONCORD_REGISTER_NAME_MAX);
	if (!exit_registered)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	exit_registered = true;

	/* its end, also by an error, is the transaction's, or sooner */
	segment = make_segment(request->data, request->len);
	PG_TRY();
	{
		memset(answer, 0, sizeof(*answer));
		if (await_answer(place, put_request(request, segment)))
			take_answer(place, answer);
		else
			answer->result = unanswered(request->op);
	}
	PG_FINALLY();
	{
		leave_place();
	}
	PG_END_TRY();
	if (segment != NULL)
		dsm_detach(segment);
}

/* ---------------------------------------------------------------- the registrar's side */

/* What was taken and not answered: nobody knows how it ended (E4).  The desk's lock is held. */
static void
answer_orphans(void)
{
	for (int i = 0; i < MaxBackends; i++)
	{
		Place	   *place = &desk->places[i];

		if (place->state != PLACE_TAKEN || place->dboid != MyDatabaseId)
			continue;
		if (place->op == CONCORD_READ)
		{
			place->state = PLACE_QUEUED;
			dlist_push_tail(&mine->queue, &place->node);
			continue;
		}
		place->state = PLACE_ANSWERED;
		place->result = unanswered(place->op);
		place->no_majority = false;
		place->no_room = false;
		memset(&place->value, 0, sizeof(place->value));
		put_bytes(place, NULL, 0, NULL);
		SetLatch(concord_procno_latch(i));
	}
}

bool
concord_desk_open(void)
{
	LWLockAcquire(desk->lock, LW_EXCLUSIVE);
	mine = find_registrar(MyDatabaseId, true);
	if (mine != NULL && mine->pid != 0)
		mine = NULL;
	if (mine != NULL)
	{
		mine->pid = MyProcPid;
		mine->procno = concord_my_procno();
		answer_orphans();
	}
	LWLockRelease(desk->lock);
	return mine != NULL;
}

void
concord_desk_close(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(desk->lock, LW_EXCLUSIVE);
	if (mine->pid == MyProcPid)
	{
		mine->pid = 0;
		answer_orphans();
	}
	LWLockRelease(desk->lock);
	mine = NULL;
}

/* The same without an ERROR, which would end the registrar; false if there is no room. */
static bool
try_segment(const void *data, uint32 len, dsm_segment **segment)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool made = true;

	PG_TRY();
	{
		*segment = make_segment(data, len);
		if (*segment != NULL)
			dsm_pin_segment(*segment);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		/* there is no transaction whose end would do it */
		LWLockReleaseAll();
		*segment = NULL;
		made = false;
	}
	PG_END_TRY();
	return made;
}

static void
answer(const ConcordTaskOutcome *outcome, void *arg)
{
	Asked	   *asked = arg;
	Place	   *place = &desk->places[asked->place];
	bool		changed = outcome->result == CONCORD_RESULT_OK && asked->op != CONCORD_READ;
	uint32		len = changed ? 0 : outcome->value.len; /* the session has it */
	dsm_segment *segment;
	bool		room = try_segment(outcome->value.data, len, &segment);
	bool		given = false;

	LWLockAcquire(desk->lock, LW_EXCLUSIVE);
	if (place->number == asked->number && place->state == PLACE_TAKEN)	/* E1 */
	{
		place->state = PLACE_ANSWERED;
		place->result = outcome->result;
		place->no_majority = outcome->no_majority;
		place->no_room = !room;
		place->value = outcome->value;
		place->value.len = len;
		place->pinned = segment != NULL;
		put_bytes(place, outcome->value.data, room ? len : 0, segment);
		given = true;
	}
	LWLockRelease(desk->lock);
	if (segment != NULL)
	{
		if (!given)
			dsm_unpin_segment(dsm_segment_handle(segment));
		dsm_detach(segment);
	}
	if (given)
		SetLatch(concord_procno_latch(asked->place));
	if (changed && asked->op == CONCORD_DELETE)
		concord_leftovers_collect(asked->name, asked->name_len);
	pfree(asked);
}

/* Takes the first of the queue; false if it is empty. */
static bool
take_one(void)
{
	Place	   *place;
	Place		copy;
	const void *data;
	Asked	   *asked;

	LWLockAcquire(desk->lock, LW_EXCLUSIVE);
	if (dlist_is_empty(&mine->queue))
	{
		LWLockRelease(desk->lock);
		return false;
	}
	place = dlist_container(Place, node, dlist_pop_head_node(&mine->queue));
	place->state = PLACE_TAKEN;
	memcpy(&copy, place, sizeof(Place));
	LWLockRelease(desk->lock);

	asked = MemoryContextAlloc(TopMemoryContext, offsetof(Asked, name) + copy.name_len);
	asked->place = (int) (place - desk->places);
	asked->number = copy.number;
	asked->op = copy.op;
	asked->name_len = copy.name_len;
	memcpy(asked->name, copy.name, copy.name_len);
	data = copy.bytes;
	if (copy.segment != DSM_HANDLE_INVALID)
		data = copy_segment(copy.segment, copy.len);
	if (data == NULL)			/* the session has gone, with its segment */
	{
		pfree(asked);
		return true;
	}
	concord_quorum_start(copy.name, copy.name_len, copy.op, copy.expected, data, copy.len,
						 copy.timeout_ms, answer, asked);
	return true;
}

void
concord_desk_serve(void)
{
	while (take_one())
		;
}
