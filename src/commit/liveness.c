/*
 * liveness.c
 *		The table of distributed transactions that this server's backends still work on (P4).
 *
 * WHAT: one entry a backend.  A transaction is entered when it gets its serial, which is before the
 * first PREPARE is sent to anybody, and left when it is out of the ProcArray (XACT_EVENT_COMMIT
 * and XACT_EVENT_ABORT come after that).  In phase two the entry is still there to be seen and to
 * hold back the horizon, but it is not live.
 *
 * INVARIANTS
 * L1 Whoever looks here first and does not find a serial, and then looks for its decision with a
 *    newer snapshot and finds none, knows that none can ever be made by this incarnation.
 * L2 A serial is given once in an incarnation, to one transaction of one database.
 * L3 An entry is written by its own backend, under ConcordSessionsLock.
 *
 * L4 A transaction that recorded a decision leaves after what it owes to synchronous standbys is
 *    noted (base/standby.c, S1).
 *
 * A backend that ends leaves through before_shmem_exit, after its transaction was aborted.  A crash
 * starts a new incarnation with an empty table: nothing of the old one can be live.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "commit/commit.h"
#include "commit/coordinator.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

typedef struct SessionsHeader
{
	uint64		last_serial;	/* under ConcordSessionsLock */
	ConcordSession sessions[FLEXIBLE_ARRAY_MEMBER];
} SessionsHeader;

LWLock	   *ConcordSessionsLock = NULL;
ConcordSession *ConcordSessions = NULL;

static SessionsHeader *header = NULL;
static bool exit_registered = false;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

int
concord_sessions_count(void)
{
	return MaxBackends;
}

static Size
sessions_size(void)
{
	return add_size(offsetof(SessionsHeader, sessions),
					mul_size(sizeof(ConcordSession), concord_sessions_count()));
}

static void
sessions_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(sessions_size());
	RequestNamedLWLockTranche("pg_concord sessions", 1);
}

static void
sessions_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	header = ShmemInitStruct("pg_concord sessions", sessions_size(), &found);
	if (!found)
		memset(header, 0, sessions_size());
	ConcordSessions = header->sessions;
	ConcordSessionsLock = &(GetNamedLWLockTranche("pg_concord sessions"))->lock;
	LWLockRelease(AddinShmemInitLock);
}

void
concord_liveness_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = sessions_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = sessions_startup;
}

static void
free_at_exit(int code, Datum arg)
{
	LWLockAcquire(ConcordSessionsLock, LW_EXCLUSIVE);
	memset(&ConcordSessions[concord_my_procno()], 0, sizeof(ConcordSession));
	LWLockRelease(ConcordSessionsLock);
}

ConcordSession *
concord_session(void)
{
	ConcordSession *session = &ConcordSessions[concord_my_procno()];

	Assert(concord_my_procno() < concord_sessions_count());
	if (session->pid != MyProcPid)
	{
		LWLockAcquire(ConcordSessionsLock, LW_EXCLUSIVE);
		memset(session, 0, sizeof(ConcordSession));
		session->pid = MyProcPid;
		session->dboid = MyDatabaseId;
		LWLockRelease(ConcordSessionsLock);
		if (!exit_registered)
			before_shmem_exit(free_at_exit, (Datum) 0);
		exit_registered = true;
	}
	return session;
}

/* Gives the running transaction a serial and enters it. */
uint64
concord_liveness_enter(const char *label)
{
	ConcordSession *session = concord_session();
	uint64		serial;

	LWLockAcquire(ConcordSessionsLock, LW_EXCLUSIVE);
	serial = ++header->last_serial; /* under the lock: given and entered in one step */
	session->state = CONCORD_TXN_RUNNING;
	session->serial = serial;
	session->started_at = GetCurrentTransactionStartTimestamp();
	strlcpy(session->label, label, sizeof(session->label));
	session->nparticipants = 0;
	LWLockRelease(ConcordSessionsLock);
	return serial;
}

void
concord_liveness_state(ConcordTxnState state)
{
	ConcordSession *session = concord_session();

	LWLockAcquire(ConcordSessionsLock, LW_EXCLUSIVE);
	session->state = state;
	LWLockRelease(ConcordSessionsLock);
}

void
concord_liveness_participants(const int16 *participants, int n)
{
	ConcordSession *session = concord_session();

	LWLockAcquire(ConcordSessionsLock, LW_EXCLUSIVE);
	session->nparticipants = Min(n, CONCORD_MAX_PARTICIPANTS_SHOWN);
	memcpy(session->participants, participants, session->nparticipants * sizeof(int16));
	LWLockRelease(ConcordSessionsLock);
}

/* Out of the table: the transaction is out of the ProcArray. */
void
concord_liveness_leave(void)
{
	ConcordSession *session = concord_session();

	LWLockAcquire(ConcordSessionsLock, LW_EXCLUSIVE);
	session->state = CONCORD_TXN_NONE;
	session->serial = 0;
	session->label[0] = '\0';
	session->nparticipants = 0;
	LWLockRelease(ConcordSessionsLock);
}

/* ------------------------------------------------------------- looking */

static bool
is_entered(const ConcordSession *session)
{
	return session->pid != 0 && session->state != CONCORD_TXN_NONE &&
		session->dboid == MyDatabaseId;
}

/* A transaction in phase two has been decided: it only waits to be forgotten. */
static bool
is_live(const ConcordSession *session)
{
	return is_entered(session) && session->state != CONCORD_TXN_FINISHING;
}

bool
concord_serial_is_live(uint64 serial)
{
	bool		found = false;

	LWLockAcquire(ConcordSessionsLock, LW_SHARED);
	for (int i = 0; i < concord_sessions_count() && !found; i++)
		found = is_live(&ConcordSessions[i]) && ConcordSessions[i].serial == serial;
	LWLockRelease(ConcordSessionsLock);
	return found;
}

bool
concord_label_is_live(const char *label)
{
	bool		found = false;

	LWLockAcquire(ConcordSessionsLock, LW_SHARED);
	for (int i = 0; i < concord_sessions_count() && !found; i++)
		found = is_live(&ConcordSessions[i]) && strcmp(ConcordSessions[i].label, label) == 0;
	LWLockRelease(ConcordSessionsLock);
	return found;
}

uint64
concord_lowest_live_serial(void)
{
	uint64		lowest;

	LWLockAcquire(ConcordSessionsLock, LW_SHARED);
	lowest = header->last_serial + 1;	/* the next one to be given */
	for (int i = 0; i < concord_sessions_count(); i++)
		if (is_entered(&ConcordSessions[i]))
			lowest = Min(lowest, ConcordSessions[i].serial);
	LWLockRelease(ConcordSessionsLock);
	return lowest;
}
