/*
 * worker.h
 *		The launcher, one a server; the maintenance worker and the registrar, one a member database.
 */
#ifndef CONCORD_WORKER_H
#define CONCORD_WORKER_H

#include "postgres.h"

/*
 * From _PG_init(), when preloaded and not in binary upgrade: registers the launcher, installs the
 * hooks that keep workers out of the way of DROP DATABASE and the like.
 */
extern void concord_worker_init(void);

extern PGDLLEXPORT void concord_launcher_main(Datum arg);
extern PGDLLEXPORT void concord_worker_main(Datum arg);
extern PGDLLEXPORT void concord_registrar_main(Datum arg);

#endif							/* CONCORD_WORKER_H */
