/* grid_host.c - a block of threads on the host (kernels/cuda/grid.h): each thread is a fiber that runs until it meets a barrier.
 * For tests: one launch at a time, in one thread. */
#include "kernels/cuda/grid.h"

#include <sys/mman.h>

/* CUDA's numbers. */
enum { INVALID_CONFIGURATION = 9, MISALIGNED_ADDRESS = 716, LAUNCH_FAILED = 719, OUT_OF_MEMORY = 2 };
enum { MOST_THREADS = 1024, LANES = 32, STACK = 256 << 10, STAGGER = 832, MOST_COPIES = 64 };

typedef enum fiber_state { READY, AT_BARRIER, AT_WARP, DONE } fiber_state;
typedef struct copy { void *to; const void *from; int group; } copy;
typedef struct fiber {
    void *sp;                   /* of the stack while it does not run */
    fiber_state state;
    int line;                   /* of the barrier */
    copy copies[MOST_COPIES];
    int n_copies, group;
} fiber;

static fiber fibers[MOST_THREADS];
static const void *met[MOST_THREADS];
static char *stacks;
static void *scheduler;
static qk_host_kernel *running;
static const void *arguments;
qk_host qk_at;

#ifdef __x86_64__
/* What a function must preserve goes onto the stack, and stacks are changed: a hundred times faster than swapcontext, which asks
 * the kernel for signal masks. */
__attribute__((naked, noinline)) static void change(void **from __attribute__((unused)), void *to __attribute__((unused)))
{
    __asm__("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n mov %rsp, (%rdi)\n mov %rsi, %rsp\n pop "
            "%r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}
#else
#error "the host form of the CUDA kernels changes stacks by itself: write change() for this processor"
#endif

static fiber *self(void) { return &fibers[qk_at.thread]; }

static void pause_at(fiber_state state, int line)
{
    fiber *f = self();
    f->state = state;
    f->line = line;
    change(&f->sp, scheduler);
}

static void body(void)
{
    running(arguments);
    pause_at(DONE, 0);
}

/* A stack on which change() finds six registers and then body(). Tops of neighbours lie in different sets of the caches. */
static void make(fiber *f, int i)
{
    void **top = (void **)(void *)(stacks + (size_t)(i + 1) * STACK - (size_t)(i * STAGGER % (STACK / 4)));
    *--top = NULL;
    *--top = (void *)(uintptr_t)body;
    f->sp = top - 6;
    f->state = READY;
    f->n_copies = f->group = 0;
}

static void resume(int i)
{
    qk_at.thread = i;
    change(&scheduler, fibers[i].sp);
}

/* Whether threads first .. last - 1 all wait for the same. */
static int all_at(int first, int last, fiber_state state)
{
    for (int i = first; i < last; i++)
        if (fibers[i].state != state || fibers[i].line != fibers[first].line) return 0;
    return 1;
}

static int run_ready(int first, int last)
{
    const int backwards = (int)(qk_at.serial & 1);
    int any = 0;
    for (int k = first; k < last; k++) {
        const int i = backwards ? first + last - 1 - k : k;
        if (fibers[i].state != READY) continue;
        resume(i);
        any = 1;
    }
    return any;
}

static void release(int first, int last)
{
    for (int i = first; i < last; i++) fibers[i].state = READY;
}

/* Until all its lanes are done or at the block's barrier; false: they never meet. */
static int run_warp(int first, int last)
{
    while (run_ready(first, last))
        if (all_at(first, last, AT_WARP)) release(first, last);
    for (int i = first; i < last; i++)
        if (fibers[i].state == AT_WARP) return 0;
    return 1;
}

static int run_block(void)
{
    const int n = qk_at.threads;
    for (int i = 0; i < n; i++) make(&fibers[i], i);
    for (;;) {
        for (int w = 0; w < n; w += LANES)
            if (!run_warp(w, w + LANES < n ? w + LANES : n)) return LAUNCH_FAILED;
        if (all_at(0, n, DONE)) return 0;
        if (!all_at(0, n, AT_BARRIER)) return LAUNCH_FAILED;
        release(0, n);
    }
}

int qk_host_launch(qk_host_kernel *kernel, int64_t blocks, int64_t threads, int most, qk_queue queue, const void *args)
{
    if (blocks < 1 || blocks > INT32_MAX || threads < 1 || threads > most || threads > MOST_THREADS) return INVALID_CONFIGURATION;
    if (queue) {
        qk_host_queue *q = queue;
        q->launches++;
        if (q->dry) return 0;
    }
    if (!stacks) {
        void *p = mmap(NULL, (size_t)MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return OUT_OF_MEMORY;
        stacks = p;
    }
    running = kernel;
    arguments = args;
    qk_at.blocks = blocks;
    qk_at.threads = (int)threads;
    qk_at.error = 0;
    for (int64_t b = 0; b < blocks && !qk_at.error; b++) {
        qk_at.block = b;
        qk_at.serial++;
        const int failed = run_block();
        if (failed) return failed;
    }
    return qk_at.error;
}

void qk_host_sync(int line) { pause_at(AT_BARRIER, line); }

const void *const *qk_host_meet(const void *mine)
{
    met[qk_at.thread] = mine;
    pause_at(AT_WARP, 1);
    return &met[qk_at.thread / LANES * LANES];
}

void qk_host_part(void) { pause_at(AT_WARP, 2); }

void qk_host_need(int fits)
{
    if (!fits) qk_at.error = MISALIGNED_ADDRESS;
}

/* ---- copies into shared memory ---- */

void qk_host_copy(void *to, const void *from)
{
    fiber *f = self();
    qk_host_need(((uintptr_t)to | (uintptr_t)from) % 16 == 0);
    if (f->n_copies == MOST_COPIES) qk_at.error = LAUNCH_FAILED;
    else f->copies[f->n_copies++] = (copy){to, from, f->group};
}

void qk_host_group(void) { self()->group++; }

void qk_host_wait(int n)
{
    fiber *f = self();
    int left = 0;
    for (int i = 0; i < f->n_copies; i++) {
        const copy *c = &f->copies[i];
        if (c->group >= f->group - n) f->copies[left++] = *c;
        else if (c->from) memcpy(c->to, c->from, 16);
        else memset(c->to, 0, 16);
    }
    f->n_copies = left;
}
