/* test_kernels.c - memory and comparisons of the kernel tests (kernel_case.h), and their program: the table of families, on the
 * host form of the kernels or on a device. */
#include "kernel_case.h"

#include "runtime/cuda/machine.h"

enum { BLOCKS = 64, RIM = 64, FILLING = 0xcd };

typedef struct block { char *at, *data; size_t bytes, shift, rim; } block;
static struct { qx_ctx *ctx; cu_machine *m; block blocks[BLOCKS]; int n; } on;

qk_queue kc_queue(void) { return cu_machine_queue(on.m); }

static void good(qx_status st)
{
    if (st != QX_OK) fail_msg("%s", qx_ctx_error(on.ctx));
}

void kc_launched(int error)
{
    good(cu_launched(on.m, error));
    good(cu_sync(on.m));
}

static block *make(size_t bytes, size_t shift, size_t rim)
{
    assert_true(on.n < BLOCKS);
    block *b = &on.blocks[on.n++];
    void *at;
    good(cu_alloc(on.m, shift + bytes + rim + (bytes == 0), &at));
    *b = (block){at, (char *)at + shift, bytes, shift, rim};
    return b;
}

void *kc_in(const void *from, size_t bytes, size_t shift)
{
    const block *b = make(bytes, shift, 0); /* exactly its size: sanitizers see a read beyond */
    good(cu_upload(on.m, b->data, from, bytes));
    return b->data;
}

void *kc_out(size_t bytes, size_t shift)
{
    const block *b = make(bytes, shift, RIM);
    const size_t all = shift + bytes + RIM;
    void *filling = malloc(all);
    memset(filling, FILLING, all);
    good(cu_upload(on.m, b->at, filling, all));
    free(filling);
    return b->data;
}

static const block *find(const void *data)
{
    for (int i = 0; i < on.n; i++)
        if (on.blocks[i].data == data) return &on.blocks[i];
    fail_msg("no such block");
    return NULL;
}

void kc_back(void *to, const void *from, size_t bytes)
{
    const block *b = find(from);
    const size_t all = b->shift + b->bytes + b->rim;
    uint8_t *seen = malloc(all + 1);
    assert_true(bytes <= b->bytes);
    good(cu_download(on.m, seen, b->at, all));
    for (size_t i = 0; i < all && b->rim; i++)
        if ((i < b->shift || i >= b->shift + b->bytes) && seen[i] != FILLING)
            fail_msg("something was written %lld bytes from the start of an array of %zu", (long long)i - (long long)b->shift, b->bytes);
    memcpy(to, seen + b->shift, bytes);
    free(seen);
}

void kc_release(void)
{
    while (on.n) cu_release(on.m, on.blocks[--on.n].at);
}

void *kc_reals(int dtype, float *v, int64_t n, size_t shift)
{
    void *typed = malloc((size_t)n * 4 + 1);
    qx_from_f32(dtype, v, n, typed);
    qx_to_f32(dtype, typed, n, v);
    void *dev = kc_in(typed, (size_t)n * kc_size(dtype), shift);
    free(typed);
    return dev;
}

void *kc_reals_out(int dtype, int64_t n, size_t shift) { return kc_out((size_t)n * kc_size(dtype), shift); }

void kc_reals_back(int dtype, float *to, const void *from, int64_t n)
{
    void *typed = malloc((size_t)n * 4 + 1);
    kc_back(typed, from, (size_t)n * kc_size(dtype));
    qx_to_f32(dtype, typed, n, to);
    free(typed);
}

static float as(int dtype, float v)
{
    uint32_t typed;
    qx_from_f32(dtype, &v, 1, &typed);
    qx_to_f32(dtype, &typed, 1, &v);
    return v;
}

/* An ulp of the type, relative to the number, where a result that is close lies on the other side of a border between two of them. */
static double step_of(int dtype) { return dtype == QX_DT_FLOAT16 ? 0x1p-10 : dtype == QX_DT_BFLOAT16 ? 0x1p-7 : 0; }

static bool agrees(int dtype, float got, float want, double tol, double floor)
{
    const float w = as(dtype, want);
    if (isnan(w) || isnan(got)) return isnan(w) && isnan(got);
    if (got == w) return tol > 0 || signbit(got) == signbit(w);
    const double off = fabs((double)got - (double)want), size = fabs((double)want);
    return tol > 0 && isfinite(got) && isfinite(w) && off <= tol * (floor + size) + step_of(dtype) * size + (dtype == QX_DT_FLOAT16
        ? 0x1p-24 : 0x1p-126);
}

void kc_agree(const char *what, int dtype, const float *got, const float *want, int64_t n, double tol, double floor)
{
    for (int64_t i = 0; i < n; i++)
        if (!agrees(dtype, got[i], want[i], tol, floor))
            fail_msg("%s, %s: element %lld of %lld is %.9g, the CPU has %.9g", what, qx_dtype_get(dtype)->text, (long long)i,
                     (long long)n, (double)got[i], (double)want[i]);
}

void kc_same(const char *what, const void *got, const void *want, size_t bytes)
{
    const uint8_t *a = got, *b = want;
    for (size_t i = 0; i < bytes; i++)
        if (a[i] != b[i]) fail_msg("%s: byte %zu of %zu is 0x%02x, the CPU has 0x%02x", what, i, bytes, a[i], b[i]);
}

void kc_hard(float *v, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) v[i] = adversarial(&seed, 1);
}

void kc_even(float *v, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) v[i] = 2 * rng_uniform(&seed) - 1;
}

void *kc_bytes(int64_t n, uint32_t seed)
{
    uint8_t *p = malloc((size_t)n + 1);
    for (int64_t i = 0; i < n; i++) p[i] = (uint8_t)(rng_next(&seed) >> 9);
    return p;
}

static void run_family(void **state)
{
    ((const kernel_family *)*state)->run();
    kc_release();
}

int main(void)
{
    const kernel_family *const tables[] = {kernels_pointwise, kernels_move, kernels_rows, kernels_quant, kernels_product,
                                           kernels_attention, kernels_cache, kernels_observe};
    struct CMUnitTest tests[64];
    size_t n = 0;
    on.ctx = qx_ctx_new(NULL);
    if (!on.ctx || cu_machine_open(on.ctx, -1, &on.m) != QX_OK) {
        printf("skipped: %s\n", on.ctx ? qx_ctx_error(on.ctx) : "no memory");
        return 77;
    }
    for (int t = 0; t < COUNT(tables); t++)
        for (const kernel_family *f = tables[t]; f->name; f++)
            tests[n++] = (struct CMUnitTest){f->name, run_family, NULL, NULL, (void *)(uintptr_t)f};
    const int failed = _cmocka_run_group_tests("kernels", tests, n, NULL, NULL);
    kc_release();
    cu_machine_close(on.m);
    qx_ctx_free(on.ctx);
    return failed;
}
