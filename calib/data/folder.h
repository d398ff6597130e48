/* folder.h - names in a folder, sorted by bytes: the order of samples never depends on the file system. */
#ifndef QX_CALIB_FOLDER_H
#define QX_CALIB_FOLDER_H

#include "base/mem.h"

/* Names in `path` that end in `suffix` (NULL: every sub-folder), in the arena. More than 65,536 are refused. */
qx_status qx_folder_list(qx_arena *a, const char *path, const char *suffix, const char ***names, int *n);
bool qx_has_suffix(const char *s, const char *suffix);

#endif
