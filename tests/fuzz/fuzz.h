/* fuzz.h - what every fuzz target shares: a context with a memory limit, and a file made of the input. */
#ifndef QX_TESTS_FUZZ_H
#define QX_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 64 MB and four times the input: the most that a broken file may cost. */
static inline qx_ctx *fuzz_ctx(size_t size)
{
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = 1, .max_memory = ((size_t)64 << 20) + 4 * size});
    if (!ctx) abort();
    return ctx;
}

/* Every block must have been given back, and a failure must have said something. */
static inline void fuzz_done(qx_ctx *ctx, qx_status st)
{
    if (qx_mem_in_use(ctx) != 0) {
        fprintf(stderr, "%zu bytes were not given back (status %d)\n", qx_mem_in_use(ctx), (int)st);
        abort();
    }
    if (st != QX_OK && !*qx_ctx_error(ctx)) {
        fprintf(stderr, "failed with status %d and no message\n", (int)st);
        abort();
    }
    qx_ctx_free(ctx);
}

/* A file in memory with these bytes; its path goes to `path` (64 bytes). Close the descriptor when done. */
static inline int fuzz_file(const uint8_t *data, size_t size, char *path)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

/* A NUL-terminated copy; free it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text) abort();
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

#endif
