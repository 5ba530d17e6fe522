/*
 * style.c
 *		Dates and times travel in ISO form, whatever the session's DateStyle.
 *
 * WHAT: all other styles write a time zone as an abbreviation, which means another zone elsewhere
 * (IST), and 'German, MDY' writes dates that it reads as others.  So what is sent as text is
 * printed in ISO form, which every DateStyle reads alike: parameters by the caller
 * (concord_print), results by the peer's session, while what the statement itself does there has
 * the caller's DateStyle: to_char, casts to text, SHOW.
 *
 * HOW, in a peer's session: DateStyle the variable decides only how values are printed (they are
 * read by DateOrder).  It is what DateStyle the setting says while a statement is run, and ISO
 * while its rows are sent: one by one, or after all is done (RETURNING, SHOW).
 *
 * INVARIANTS
 * Y1 Between the statements of a peer's session the variable is ISO, or what was assigned to the
 *    setting since.
 * Y2 The setting itself is never touched.
 *
 * The other formats need nothing: the peer has the caller's IntervalStyle, each of which reads what
 * it has written, and floats are printed exactly.
 *
 * COST where DateStyle is ISO: two comparisons per statement.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "shard/shard.h"
#include "utils/float.h"
#include "utils/guc.h"

typedef struct IsoReceiver
{
	DestReceiver pub;
	DestReceiver *inner;
} IsoReceiver;

static bool running = false;	/* within a statement, for which the variable was set */
static bool forced = false;		/* the variable may be ISO while the setting is not (Y1) */

/*
 * A value as it travels.
 */
char *
concord_print(ConcordTypeIO *io, Datum value)
{
	int			style = DateStyle;
	int			digits = extra_float_digits;
	char	   *volatile text = NULL;

	DateStyle = USE_ISO_DATES;
	extra_float_digits = Max(digits, 1);
	PG_TRY();
	{
		text = OutputFunctionCall(&io->output, value);
	}
	PG_FINALLY();
	{
		DateStyle = style;
		extra_float_digits = digits;
	}
	PG_END_TRY();
	return text;
}

/* ---------------------------------------------------- in a peer's session */

static int
style_of_setting(void)
{
	const char *setting = GetConfigOption("DateStyle", false, false);

	switch (setting[0])
	{
		case 'G':
			return USE_GERMAN_DATES;
		case 'P':
			return USE_POSTGRES_DATES;
		case 'S':
			return USE_SQL_DATES;
		default:
			return USE_ISO_DATES;
	}
}

/*
 * A statement, or a part of it, begins: if this returns true, concord_style_leave() must be called
 * when it ends, also by an error.
 */
bool
concord_style_enter(void)
{
	if (running || (!forced && DateStyle == USE_ISO_DATES))
		return false;
	DateStyle = style_of_setting();
	running = forced = true;
	return true;
}

void
concord_style_leave(void)
{
	DateStyle = USE_ISO_DATES;
	running = false;
}

static bool
iso_receive(TupleTableSlot *slot, DestReceiver *self)
{
	DestReceiver *inner = ((IsoReceiver *) self)->inner;
	int			style = DateStyle;
	bool		more;

	DateStyle = USE_ISO_DATES;
	more = inner->receiveSlot(slot, inner);
	DateStyle = style;
	return more;
}

static void
iso_startup(DestReceiver *self, int operation, TupleDesc desc)
{
	DestReceiver *inner = ((IsoReceiver *) self)->inner;

	inner->rStartup(inner, operation, desc);
}

static void
iso_shutdown(DestReceiver *self)
{
	DestReceiver *inner = ((IsoReceiver *) self)->inner;

	inner->rShutdown(inner);
}

static void
iso_destroy(DestReceiver *self)
{
	pfree(self);
}

/*
 * A receiver that prints in ISO form what this one sends to the client; any other is returned
 * itself.  palloc'd, for the time of the statement.
 */
DestReceiver *
concord_style_receiver(DestReceiver *inner)
{
	IsoReceiver *receiver;

	if (inner->mydest != DestRemote && inner->mydest != DestRemoteExecute)
		return inner;
	receiver = palloc0(sizeof(IsoReceiver));
	receiver->pub.receiveSlot = iso_receive;
	receiver->pub.rStartup = iso_startup;
	receiver->pub.rShutdown = iso_shutdown;
	receiver->pub.rDestroy = iso_destroy;
	receiver->pub.mydest = inner->mydest;
	receiver->inner = inner;
	return &receiver->pub;
}
