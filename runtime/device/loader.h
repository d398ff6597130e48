/* loader.h - finds and opens the device plugin. Internal to runtime/. */
#ifndef QX_RUNTIME_LOADER_H
#define QX_RUNTIME_LOADER_H

#include "base/mem.h"
#include "runtime/backend.h"

#define QX_PLUGIN_FILE "qonnx-cuda.so"

/* The table of the plugin. Looks into the directories of `dirs` (separated by ':', may be NULL), beside the program, in
 * ../lib/qonnx from there, and in the folder of the installed library. The first file with the name decides: what is wrong with
 * it is the error (QX_E_UNSUPPORTED), no other is tried. *installed: such a file exists. A plugin stays loaded until the process
 * ends: unloading CUDA libraries is not safe. */
qx_status qx_plugin_load(qx_ctx *ctx, const char *dirs, const qx_backend **out, bool *installed);

/* Whether a driver is there at all: a look-up of 0.1 ms, while a plugin maps 150 MB of libraries to say the same. */
bool qx_plugin_driver(void);

#endif
