/* bench_exec.c - a model held open for against_ort.py: bench_exec MODEL INPUTS.npz THREADS [OPTIONS] prints "ready" and the wall
 * seconds and processor seconds of open, plan, pack and first run, then for each line on its input makes one run and prints its
 * wall seconds and processor seconds; at the end of the input the peak of resident memory in KiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qonnx.h"

enum { MAX_PORTS = 256 };

static double now(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct bench {
    qonnx_ctx *ctx;
    qonnx_npz *npz;
    qonnx_session *session;
    qonnx_tensor in[MAX_PORTS], out[MAX_PORTS];
    int n_in, n_out;
} bench;

static int check(const bench *b, qonnx_code code, const char *what)
{
    if (code != QONNX_OK) fprintf(stderr, "bench_exec: %s: %s\n", what, qonnx_error(b->ctx));
    return code != QONNX_OK;
}

static int run(bench *b)
{
    return check(b, qonnx_session_run(b->session, b->in, b->n_in, NULL, b->n_out, b->out), "run");
}

static int open_all(bench *b, char **argv, const char *options)
{
    const qonnx_port *ports;
    if (check(b, qonnx_set_threads(b->ctx, atoi(argv[3])), "threads") || check(b, qonnx_npz_open(b->ctx, argv[2], &b->npz), argv[2]))
        return 1;
    b->n_in = qonnx_npz_count(b->npz);
    if (b->n_in > MAX_PORTS) return 1;
    for (int i = 0; i < b->n_in; i++)
        if (check(b, qonnx_npz_get(b->npz, i, &b->in[i]), argv[2])) return 1;
    const double t0 = now(CLOCK_MONOTONIC), c0 = now(CLOCK_PROCESS_CPUTIME_ID);
    if (check(b, qonnx_session_open(b->ctx, argv[1], options, &b->session), argv[1])) return 1;
    b->n_out = qonnx_session_outputs(b->session, &ports);
    if (b->n_out > MAX_PORTS || run(b)) return 1;
    printf("ready %.6f %.6f\n", now(CLOCK_MONOTONIC) - t0, now(CLOCK_PROCESS_CPUTIME_ID) - c0);
    fflush(stdout);
    return 0;
}

static long peak_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmHWM:", 6) == 0) kib = atol(line + 6);
    if (f) fclose(f);
    return kib;
}

int main(int argc, char **argv)
{
    static bench b;
    char line[64];
    if (argc < 4) return fprintf(stderr, "bench_exec MODEL INPUTS.npz THREADS [OPTIONS]\n"), 2;
    b.ctx = qonnx_open();
    int bad = open_all(&b, argv, argc > 4 ? argv[4] : NULL);
    while (!bad && fgets(line, sizeof line, stdin)) {
        double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        bad = run(&b);
        printf("%.6f %.6f\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        fflush(stdout);
    }
    printf("rss %ld\n", peak_kib());
    qonnx_session_close(b.session);
    qonnx_npz_close(b.npz);
    qonnx_close(b.ctx);
    return bad;
}
