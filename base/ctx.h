/* ctx.h - what a context holds; only for the files in base/. */
#ifndef QX_BASE_CTX_H
#define QX_BASE_CTX_H

#include "base/file.h"

#include <locale.h>
#include <pthread.h>
#include <stdatomic.h>

#define QX_MESSAGE_MAX 8192 /* longest message chain; the context keeps it inline so that running out of memory can be told */

enum { QX_TOLD = 64 };

enum { QX_SPARES = 64 };
typedef struct qx_spares { pthread_mutex_t lock; void *block[QX_SPARES]; int n, holders; } qx_spares; /* freed blocks of qx_alloc_again */

struct qx_ctx {
    qx_ctx_options opt;
    int threads;
    uint64_t seed;         /* of hash tables */
    locale_t c_locale;     /* numbers are read with '.', whatever the program has set */
    pthread_mutex_t lock;  /* error chain */
    pthread_mutex_t sink;  /* log and progress callbacks: one at a time */
    uint64_t told[QX_TOLD]; /* hashes of the last warnings and lines of qx_log_once, which are not told again */
    unsigned n_told;
    atomic_int error_of;   /* 1 + the thread whose message `error` is, 0 when there is none */
    char error[QX_MESSAGE_MAX];
    atomic_int warnings;
    atomic_int regions;    /* parallel regions that run now: while > 0 the first thread that fails wins */
    atomic_size_t in_use, peak, recent; /* recent: the peak since it was last asked for */
    qx_spares spares;
    atomic_int_least64_t alloc_fail;
    atomic_int_least64_t io_fail[4]; /* by qx_io_kind */
};

/* vsnprintf with two differences: a %s without precision is cut to 256 bytes, and every %s is made printable (a name from a
 * hostile file cannot move the cursor or fake a line). Output that does not fit ends in "...". */
void qx_format(char *out, size_t cap, const char *fmt, va_list ap);
/* True when the countdown in *counter just reached its call. */
bool qx_countdown(atomic_int_least64_t *counter);
/* Counts bytes that a library allocates for us (cJSON) against the cap, and gives them back. */
qx_status qx_mem_reserve(qx_ctx *ctx, size_t size);
void qx_mem_release(qx_ctx *ctx, size_t size);
/* Inside a parallel region: whether the message that stands is of this thread. */
bool qx_error_is_mine(const qx_ctx *ctx);
const char *qx_errno_text(int err, char *buf, size_t cap);

#endif
