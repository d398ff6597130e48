/* library.c - finds cuBLASLt and cuDNN. Either may be missing: products and convolutions then run on our own kernels, which the
 * device's notes say. Both are in the names of CUDA 13 and 12, whose functions used here are the same; they stay loaded, as
 * vendors ask for. */
#include "runtime/cuda/library.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct symbol { const char *name; size_t at; } symbol;
#define BLAS_SYMBOL(name) {#name, offsetof(cu_blas, name)},
#define DNN_SYMBOL(name) {#name, offsetof(cu_dnn, name)},
static const symbol blas_symbols[] = {CU_BLAS(BLAS_SYMBOL) {NULL, 0}}, dnn_symbols[] = {CU_DNN(DNN_SYMBOL) {NULL, 0}};
static const char *const blas_files[] = {"libcublasLt.so.13", "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so", NULL};
static const char *const dnn_files[] = {"libcudnn.so.9", "/usr/local/cuda/lib64/libcudnn.so.9", NULL};

static void note(qx_dev *d, const char *text, const char *why)
{
    char *to = d->info.notes;
    const size_t used = strlen(to), room = sizeof d->info.notes - used;
    snprintf(to + used, room, "%s%s (%.90s)", used ? "; " : "", text, why);
}

/* The first file that is there, with all functions in `calls`; *why: what the first one lacked. */
static bool load(const char *const *files, const symbol *symbols, void *calls, char why[128])
{
    void *lib = NULL;
    *why = 0;
    for (int i = 0; files[i] && !lib; i++) {
        lib = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
        if (!lib && !*why) snprintf(why, 128, "%s", dlerror());
    }
    for (; lib && symbols->name; symbols++) {
        void *f = dlsym(lib, symbols->name);
        memcpy((char *)calls + symbols->at, &f, sizeof f);
        if (!f) {
            snprintf(why, 128, "it lacks %s", symbols->name);
            return false;
        }
    }
    return lib != NULL;
}

static void open_blas(qx_dev *d, cu_library *l)
{
    char why[128];
    l->has_blas = load(blas_files, blas_symbols, &l->blas, why);
    if (l->has_blas) {
        const cublasStatus_t st = l->blas.cublasLtCreate(&l->lt);
        l->has_blas = st == CUBLAS_STATUS_SUCCESS;
        if (!l->has_blas) snprintf(why, sizeof why, "%s", l->blas.cublasLtGetStatusString(st));
    }
    if (!l->has_blas) note(d, "products run on our own kernels, slowly: no cuBLASLt", why);
}

qx_status cu_lib_open(qx_dev *d)
{
    cu_library *l = NULL;
    char why[128];
    QX_TRY(QX_NEW(d->ctx, &l));
    d->lib = l;
    open_blas(d, l);
    l->has_dnn = load(dnn_files, dnn_symbols, &l->dnn, why);
    if (!l->has_dnn) note(d, "convolutions run on our own kernels, slowly: no cuDNN", why);
    return QX_OK;
}

void cu_lib_close(qx_dev *d)
{
    cu_library *l = d->lib;
    if (!l) return;
    cu_engines_close(d);
    if (l->cudnn) l->dnn.cudnnDestroy(l->cudnn);
    if (l->lt) l->blas.cublasLtDestroy(l->lt);
    qx_free(d->ctx, l);
    d->lib = NULL;
}
