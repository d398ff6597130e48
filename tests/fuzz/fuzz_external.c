/* fuzz_external.c - models with external data against a folder of good and treacherous files: whatever a model says, what is read
 * lies in that folder. */
#include "fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sys/stat.h>

#include "onnx/file/io.h"

static char root[PATH_MAX];

static void make(const char *name, const char *link_to)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", root, name);
    if (link_to) {
        if (symlink(link_to, path) != 0) abort();
        return;
    }
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    uint8_t bytes[64] = {0};
    if (fd < 0 || write(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes) abort();
    close(fd);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void remove_folder(void)
{
    *strrchr(root, '/') = 0; /* the one around in/ */
    (void)nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* in/: w.bin, d/w.bin, and links out of it; secret: beside it. */
static void make_folder(void)
{
    char outside[] = "/tmp/qx_fuzz_ext_XXXXXX", fifo[PATH_MAX + 32];
    if (!mkdtemp(outside)) abort();
    snprintf(root, sizeof root, "%s", outside);
    make("secret", NULL);
    snprintf(root, sizeof root, "%s/in", outside);
    snprintf(fifo, sizeof fifo, "%s/d", root);
    if (mkdir(root, 0700) != 0 || mkdir(fifo, 0700) != 0) abort();
    make("w.bin", NULL);
    make("d/w.bin", NULL);
    make("l", "../secret");
    make("p", "..");
    make("z", "/dev/zero");
    make("o", "o");
    snprintf(fifo, sizeof fifo, "%s/f", root);
    if (mkfifo(fifo, 0600) != 0 || atexit(remove_folder) != 0) abort();
}

static void check_inside(qx_ctx *ctx, qx_model *m)
{
    for (uint32_t i = 0; i < m->graph->n_inits; i++) {
        const qx_weight *w = m->graph->inits[i]->init;
        char link[64], real[PATH_MAX] = "";
        if (!w || w->src.kind != QX_SRC_FILE) continue;
        snprintf(link, sizeof link, "/proc/self/fd/%d", qx_file_fd(w->src.file));
        if (readlink(link, real, sizeof real - 1) < 0 || strncmp(real, root, strlen(root)) || real[strlen(root)] != '/') abort();
        void *all;
        if (w->bytes > 4096) abort(); /* no file there is larger */
        if (qx_alloc_raw(ctx, w->bytes, &all) != QX_OK) continue;
        if (qx_weight_read(ctx, w, all) != QX_OK) abort();
        qx_free(ctx, all);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    qx_model *m = NULL;
    if (!*root) make_folder();
    const qx_read_options o = {.skip_check = true, .strict = size % 2};
    const qx_status st = qx_model_read_bytes(ctx, data, size, root, &o, &m);
    if (st == QX_OK) {
        check_inside(ctx, m);
        qx_model_free(m);
    }
    fuzz_done(ctx, st);
    return 0;
}
