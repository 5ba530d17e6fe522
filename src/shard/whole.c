/*
 * whole.c
 *		Is a call of a routing function all that its transaction does?
 *
 * WHAT: then its statement may be sent without BEGIN and without COMMIT (peer/statement.c), which
 * saves a round trip.  The answer is no whenever in doubt.
 *
 * PROMISE: after the function has returned, nothing that could fail stands between it and the end
 * of the local transaction, which has nothing to commit.  What is left is to send its result; a
 * client that is gone by then has not been told anything.
 *
 * It is the whole transaction if
 * 1 the transaction is READ COMMITTED, READ WRITE, has no block, savepoint, label, transaction id
 *   and no branch, and its session has no lease lock that its commit would have to look at;
 * 2 the statement is what the client sent (not nested in a function, EXECUTE or cursor): the
 *   active portal is the unnamed one, its destination is the client, and its plan has this very
 *   call as an expression;
 * 3 the plan is nothing but the call: SELECT f(..), or SELECT columns FROM f(..), with constants
 *   and parameters as arguments;
 * 4 nothing else belongs to the transaction.  With the simple protocol several statements in one
 *   message make a block (1).  With the extended one nothing was executed before, and the
 *   message that the client has sent next is Sync.  That is looked up among what has been
 *   received, never waited for.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "executor/execdesc.h"
/* its headers are not in the server's development package */
#undef ENABLE_GSS
#include "libpq/libpq.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "peer/peer.h"
#include "shard/shard.h"
#include "tcop/pquery.h"

bool		concord_commit_guarded = false;

/* 1 */
static bool
transaction_is_fresh(void)
{
	return !concord_commit_guarded && XactIsoLevel == XACT_READ_COMMITTED &&
		!XactReadOnly && !XactDeferrable && !IsTransactionBlock() &&
		GetCurrentTransactionNestLevel() == 1 &&
		concord_transaction_label[0] == '\0' && !concord_branches_any() &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny());
}

/* Is there anything in an argument that does more than compute a value? */
static bool
is_more_than_value(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Const:
		case T_List:
		case T_ArrayExpr:
		case T_RelabelType:
			break;
		case T_Param:
			if (((Param *) node)->paramkind != PARAM_EXTERN)
				return true;
			break;
		case T_FuncExpr:
			/* PostgreSQL's own casts */
			if (((FuncExpr *) node)->funcformat == COERCE_EXPLICIT_CALL ||
				((FuncExpr *) node)->funcid >= FirstNormalObjectId)
				return true;
			break;
		default:
			return true;
	}
	return expression_tree_walker(node, is_more_than_value, context);
}

static bool
are_columns(List *targets)
{
	ListCell   *lc;

	foreach(lc, targets)
		if (!IsA(lfirst_node(TargetEntry, lc)->expr, Var))
			return false;
	return true;
}

/* The call that is all that the plan does, or NULL. */
static Node *
only_call(const PlannedStmt *statement)
{
	Plan	   *plan = statement->planTree;

	if (statement->commandType != CMD_SELECT || statement->hasModifyingCTE ||
		statement->subplans != NIL || statement->rowMarks != NIL || plan->qual != NIL ||
		plan->initPlan != NIL)
		return NULL;
	if (IsA(plan, Result) && plan->lefttree == NULL &&
		((Result *) plan)->resconstantqual == NULL && list_length(plan->targetlist) == 1)
		return (Node *) linitial_node(TargetEntry, plan->targetlist)->expr;
	if (IsA(plan, FunctionScan) && !((FunctionScan *) plan)->funcordinality &&
		list_length(((FunctionScan *) plan)->functions) == 1 && are_columns(plan->targetlist))
		return linitial_node(RangeTblFunction, ((FunctionScan *) plan)->functions)->funcexpr;
	return NULL;
}

/* 2, 3 */
static bool
statement_is_call(const QueryDesc *query, Node *call)
{
	return call != NULL && IsA(call, FuncExpr) && only_call(query->plannedstmt) == call &&
		!is_more_than_value((Node *) ((FuncExpr *) call)->args, NULL);
}

/* 4, extended protocol */
static bool
sync_is_next(void)
{
	int			next;

	if ((MyXactFlags & XACT_FLAGS_PIPELINING) || !concord_client_input_waits())
		return false;
	pq_startmsgread();
	next = pq_peekbyte();
	pq_endmsgread();
	return next == 'S';
}

bool
concord_call_is_whole(FunctionCallInfo fcinfo)
{
	Portal		portal = ActivePortal;

	if (!transaction_is_fresh() || portal == NULL || portal->name[0] != '\0' ||
		portal->strategy != PORTAL_ONE_SELECT || portal->queryDesc == NULL ||
		!statement_is_call(portal->queryDesc, fcinfo->flinfo->fn_expr))
		return false;
	switch (portal->queryDesc->dest->mydest)
	{
		case DestRemote:		/* simple protocol */
			return true;
		case DestRemoteExecute:
			return sync_is_next();
		default:
			return false;
	}
}
