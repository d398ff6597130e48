/* device.c - see device.h. The environment is read here and nowhere in the library. */
#include "cli/device.h"

#include <stdlib.h>

const char *cli_plugin_path(void)
{
    const char *path = getenv("QONNX_PLUGIN_PATH");
    return path && *path ? path : NULL;
}

qx_status cli_device(cli *c, qx_exec_options *o)
{
    const char *device = cli_value(c, "device"), *memory = cli_value(c, "max-device-memory");
    int64_t bytes;
    if (device) QX_TRY(qx_exec_set_device(c->ctx, device, o));
    o->plugin_dir = cli_plugin_path();
    o->allow_fallback = cli_flag(c, "allow-fallback");
    if (!memory) return QX_OK;
    qx_status st = qx_parse_size(c->ctx, memory, &bytes);
    if (st != QX_OK) return qx_note(c->ctx, QX_E_USAGE, "--max-device-memory");
    o->max_device_memory = (size_t)bytes;
    return QX_OK;
}
