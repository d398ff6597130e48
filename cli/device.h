/* device.h - options of every command that runs a model: where, and what may stay on the CPU. */
#ifndef QX_CLI_DEVICE_H
#define QX_CLI_DEVICE_H

#include "cli/cli.h"
#include "runtime/exec.h"

#define CLI_DEVICE_OPTIONS \
    {"device", 0, QX_ARG_VALUE, "auto|cpu|cuda[:N]", "auto", "where the model runs; auto takes a GPU when the plugin and a device are there"}, \
    {"allow-fallback", 0, QX_ARG_FLAG, NULL, NULL, "nodes without a kernel on the device run on the CPU instead of being an error"}, \
    {"max-device-memory", 0, QX_ARG_VALUE, "SIZE", "all", "weights beyond this much device memory are uploaded for each use (8G, 512M)"}

/* The fields behind CLI_DEVICE_OPTIONS; others are left alone. The folders of QONNX_PLUGIN_PATH are searched first. */
qx_status cli_device(cli *c, qx_exec_options *o);
/* QONNX_PLUGIN_PATH, NULL when not set. */
const char *cli_plugin_path(void);

#endif
