/* loader.c - dlopen and the checks behind it. The main program names no vendor library, so that it starts on any machine. */
#include "runtime/device/loader.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef QONNX_PLUGIN_LIBDIR
#define QONNX_PLUGIN_LIBDIR "/usr/lib/qonnx"
#endif

/* dir/name into path when such a file is there. */
static bool found(const char *dir, size_t n, const char *below, char *path, size_t cap)
{
    int len = snprintf(path, cap, "%.*s%s/%s", (int)n, dir, below, QX_PLUGIN_FILE);
    return n > 0 && n < PATH_MAX && len > 0 && (size_t)len < cap && access(path, R_OK) == 0;
}

static bool in_list(const char *dirs, char *path, size_t cap)
{
    while (dirs && *dirs) {
        size_t n = strcspn(dirs, ":");
        if (found(dirs, n, "", path, cap)) return true;
        dirs += n + (dirs[n] == ':');
    }
    return false;
}

/* Beside the file `self` (program or library), and in the library folder that belongs to it. */
static bool near_file(const char *self, char *path, size_t cap)
{
    const char *slash = strrchr(self, '/');
    size_t n = slash ? (size_t)(slash - self) : 0;
    return found(self, n, "", path, cap) || found(self, n, "/qonnx", path, cap) || found(self, n, "/../lib/qonnx", path, cap);
}

static bool find_file(const char *dirs, char *path, size_t cap)
{
    char exe[PATH_MAX];
    Dl_info self;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    if (in_list(dirs, path, cap) || near_file(exe, path, cap)) return true;
    if (dladdr((const void *)QX_PLUGIN_FILE, &self) && self.dli_fname && near_file(self.dli_fname, path, cap)) return true;
    return found(QONNX_PLUGIN_LIBDIR, strlen(QONNX_PLUGIN_LIBDIR), "", path, cap);
}

/* The CUDA libraries have message texts of their own; dlerror names the one that is missing. */
static qx_status open_file(qx_ctx *ctx, const char *path, const qx_backend **out)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lib) {
        const char *why = dlerror();
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "%.200s", why ? why : path);
    }
    qonnx_backend_fn *entry;
    *(void **)&entry = dlsym(lib, QX_BACKEND_SYMBOL); /* POSIX's own way to turn an object pointer into a function */
    if (!entry) QX_FAIL(ctx, QX_E_UNSUPPORTED, "%s is not a qonnx plugin: it has no function %s", path, QX_BACKEND_SYMBOL);
    const qx_backend *b = entry(QX_BACKEND_ABI);
    if (!b)
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "%s does not speak plugin interface %d: plugin and program are of different versions", path,
                QX_BACKEND_ABI);
    if (b->abi != QX_BACKEND_ABI || b->struct_size != sizeof *b)
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "%s has plugin interface %u of %u bytes, this program %d of %zu", path, b->abi, b->struct_size,
                QX_BACKEND_ABI, sizeof *b);
    *out = b;
    return QX_OK;
}

qx_status qx_plugin_load(qx_ctx *ctx, const char *dirs, const qx_backend **out, bool *installed)
{
    char path[PATH_MAX + 64];
    *out = NULL;
    *installed = find_file(dirs, path, sizeof path);
    if (!*installed)
        QX_FAIL(ctx, QX_E_UNSUPPORTED,
                "%s is not installed (looked in %s, beside the program, in ../lib/qonnx and in " QONNX_PLUGIN_LIBDIR ")", QX_PLUGIN_FILE,
                dirs && *dirs ? dirs : "no extra folder");
    return open_file(ctx, path, out);
}

bool qx_plugin_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver) dlclose(driver);
    return driver != NULL;
}
