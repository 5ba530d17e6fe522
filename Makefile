# pg_concord: build, install, test.
#
#   make && make install            with any PG_CONFIG=...; in the tree, or outside a clean one (make -f ...)
#   make installcheck               pg_regress tests against a running server that preloads pg_concord
#   make test | demo | demo-stop    everything from a clean clone, on servers of their own
#
# Plain "make" needs the server's and libpq's headers, nothing else.

EXTENSION    = pg_concord
EXTVERSION   = 0.1
MODULE_big   = pg_concord
PGFILEDESC   = "pg_concord - makes a set of PostgreSQL servers keep their promises to each other"

here         := $(dir $(firstword $(MAKEFILE_LIST)))
# the stairs of DESIGN, bottom first: the install script is the rooms' scripts in this order
ROOMS        = base peer cluster quorum commit shard lock session outbox worker
ROOM_SQL     = $(foreach room,$(ROOMS),$(wildcard $(here)src/$(room)/$(room).sql) \
	$(sort $(filter-out $(here)src/$(room)/$(room).sql,$(wildcard $(here)src/$(room)/*.sql))))
INCLUDES     = $(wildcard $(here)src/*.h $(here)src/*/*.h)
OBJS         = $(patsubst $(here)%.c,%.o,$(sort $(wildcard $(here)src/*.c $(here)src/*/*.c)))
DATA_built   = $(EXTENSION)--$(EXTVERSION).sql
EXTRA_CLEAN  = tmp_check

PG_CPPFLAGS  = -I$(here)src -I$(libpq_srcdir)
SHLIB_LINK_INTERNAL = $(libpq)

# Warnings are errors only when asked for, so that no other compiler can break a user's build.
# (A callback of PostgreSQL's has the parameters it has.)
ifdef WERROR
PG_CFLAGS   += -Wall -Wextra -Wno-unused-parameter -Werror
PG_CPPFLAGS += -isystem $(includedir_server)
endif

# Named fault points for tests (src/base/fault.h); never in a release build.
ifdef FAULTS
PG_CPPFLAGS += -DCONCORD_FAULTS
endif

REGRESS      = $(patsubst $(here)sql/%.sql,%,$(sort $(wildcard $(here)sql/*.sql)))
ISOLATION    = $(patsubst $(here)test/isolation/specs/%.spec,%,$(sort $(wildcard $(here)test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(here)test/isolation --load-extension=pg_concord

PG_CONFIG   ?= pg_config
PGXS        := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))

ifneq ($(PGXS),)

# A server built with JIT wants bitcode, which needs its clang; without that clang there is none.
ifeq ($(shell command -v "$$(sed -n 's/^CLANG *= *//p' $(dir $(PGXS))../Makefile.global)"),)
override with_llvm = no
endif

include $(PGXS)

$(shell mkdir -p $(sort $(dir $(OBJS))))
$(OBJS) $(OBJS:.o=.bc): $(INCLUDES)

$(DATA_built): $(ROOM_SQL)
	cat $^ > $@

else

all install installcheck clean:
	@echo 'No PGXS: install the headers of your server (Debian: postgresql-server-dev-<version>), or set PG_CONFIG.' >&2
	@exit 1

endif

# The targets below install what is missing (root or sudo), build for themselves and run servers of
# their own as an unprivileged user.  make test PARTS="lint unit sim model fuzz regress isolation tap demo"
export PG_CONFIG PARTS PROVE_TESTS SUITES

test:
	@$(here)test/lib/run.sh $(PARTS)

lint:
	@$(here)test/lib/run.sh lint

demo:
	@$(here)test/demo/demo.sh start

demo-stop:
	@$(here)test/demo/demo.sh stop

bench:
	@$(here)test/bench/run.sh

soak:
	@CONCORD_SOAK=1 RUNS=30000000 CONCORD_STEPS=2000000 $(here)test/lib/run.sh lint unit sim model fuzz tap

matrix:
	@$(here)test/lib/matrix.sh

checkversion:
	@$(here)test/lint/check-version.sh

.PHONY: test lint demo demo-stop bench soak matrix checkversion
