/* thread.h - OpenMP in one place. Work is cut into fixed pieces that do not depend on the number of threads, so results
 * are the same bytes for any --threads. */
#ifndef QX_BASE_THREAD_H
#define QX_BASE_THREAD_H

#include "base/status.h"

/* fn(user, i) for i in [0, n), on the context's threads, dynamically scheduled. Stops handing out pieces after the first
 * failure or cancel, and returns it. Inside a parallel region it runs serially. */
typedef qx_status qx_piece_fn(void *user, int64_t i);
qx_status qx_parallel(qx_ctx *ctx, int64_t n, qx_piece_fn *fn, void *user);
/* Makes libraries that open OpenMP regions themselves (oneDNN) use as many threads as the context has, at most `most` (0: no limit). */
void qx_thread_apply(const qx_ctx *ctx, int most);
/* Whether any of the threads that such libraries use has raised the floating-point exception "invalid" since the last call; forgets it. */
bool qx_thread_invalid(void);
int qx_thread_index(void); /* 0 .. threads-1 inside qx_parallel, else 0 */

typedef struct qx_lock qx_lock;
qx_status qx_lock_new(qx_ctx *ctx, qx_lock **out);
void qx_lock_free(qx_lock *l);
void qx_lock_take(qx_lock *l);
void qx_lock_give(qx_lock *l);
double qx_clock_seconds(void); /* monotonic */

#endif
