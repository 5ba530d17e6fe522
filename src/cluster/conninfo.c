/*
 * conninfo.c
 *		Addresses as users give them, and keeping what they should not contain out of the log.
 *
 * PROMISE: an address that is stored in the map means the same on every node.  What libpq would
 * fill in from its environment (port, database) is made explicit, and a host is required.
 */
#include "postgres.h"

#include "cluster/room.h"
#include "miscadmin.h"
#include "pg_config.h"
#include "utils/builtins.h"
#include "utils/elog.h"

static bool
has_option(List *options, const char *keyword)
{
	size_t		length = strlen(keyword);
	ListCell   *lc;

	foreach(lc, options)
	{
		const char *option = lfirst(lc);

		if (strncmp(option, keyword, length) == 0 && option[length] == '=')
			return option[length + 1] != '\0';
	}
	return false;
}

List *
concord_options_with(List *options, const char *keyword, const char *value)
{
	return lappend(list_copy(options), psprintf("%s=%s", keyword, value));
}

static void
hide_statement(void *arg)
{
	(void) arg;
	errhidestmt(true);
}

void
concord_hide_statement(ErrorContextCallback *callback)
{
	callback->callback = hide_statement;
	callback->arg = NULL;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

void
concord_show_statement(ErrorContextCallback *callback)
{
	error_context_stack = callback->previous;
}

List *
concord_address_parse(const char *conninfo, char **user, bool *given_user)
{
	ErrorContextCallback hide;
	List	   *options;

	concord_hide_statement(&hide);
	options = concord_conninfo_parse(conninfo, user);
	concord_show_statement(&hide);

	*given_user = *user != NULL;
	if (*user == NULL)
		*user = GetUserNameFromId(GetUserId(), false);
	if (has_option(options, "service"))
		return options;
	if (!has_option(options, "host") && !has_option(options, "hostaddr"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("connection string does not name a host"),
				 errhint("Every node connects with this string: give host, port and dbname.")));
	if (!has_option(options, "port"))
		options = concord_options_with(options, "port", DEF_PGPORT_STR);
	if (!has_option(options, "dbname"))
		options = concord_options_with(options, "dbname", *user);
	return options;
}

List *
concord_options_checked(Datum array)
{
	List	   *options = concord_array_to_list(array);
	ListCell   *lc;

	foreach(lc, options)
	{
		char	   *keyword = pstrdup(lfirst(lc));
		char	   *equals = strchr(keyword, '=');

		if (equals != NULL)
			*equals = '\0';
		if (equals == NULL || !concord_option_allowed(keyword, false))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid connection options")));
	}
	return options;
}

ConcordLink *
concord_address_link(const char *name, List *options, const char *user)
{
	return concord_link_open(name, concord_options_with(options, "user", user));
}

ConcordLink *
concord_node_link(const ConcordNode *node, const char *name, List *options, const char *user)
{
	List	   *mapping;

	if (options == NIL)
		return concord_link_open(name, concord_server_options(node->serverid, GetUserId(), false));
	if (user != NULL)
		return concord_address_link(name, options, user);
	mapping = concord_mapping_options(node->serverid, GetUserId(), false);
	return concord_link_open(name, list_concat_copy(options, mapping));
}
