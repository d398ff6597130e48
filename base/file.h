/* file.h - reading with pread or mmap, and output that is complete or not there at all.
 *
 * An output set is one or more files written under temporary names in the target's directory, and renamed in the order they were
 * opened when the set is committed; the last rename is the commit point. Anything else removes the temporaries. A pair that
 * replaces an older pair needs a stand-in (qx_outset_stand_in): then a kill at any instant leaves a pair that belongs together. */
#ifndef QX_BASE_FILE_H
#define QX_BASE_FILE_H

#include "base/mem.h"

typedef struct qx_file qx_file; /* a regular file opened for reading; closed with qx_file_close */
qx_status qx_file_open(qx_ctx *ctx, const char *path, qx_file **out);
/* Takes over a descriptor that the caller has checked. */
qx_status qx_file_from_fd(qx_ctx *ctx, int fd, const char *path, qx_file **out);
void qx_file_close(qx_file *f);
const char *qx_file_path(const qx_file *f);
int64_t qx_file_size(const qx_file *f);
int qx_file_fd(const qx_file *f);
/* Reads exactly n bytes at offset; a short file is QX_E_IO with path, offset and both sizes. Thread safe. */
qx_status qx_file_read(qx_file *f, int64_t offset, size_t n, void *out);
/* Whole file mapped read-only; unmapped by qx_file_close. For structure only: payloads go through qx_file_read. */
qx_status qx_file_map(qx_file *f, const uint8_t **out);
/* The map's pages leave the process until they are read again, by any thread. NULL, or a file that is not mapped: nothing. */
void qx_file_rest(qx_file *f);
/* Reads a whole file of at most `cap` bytes into a NUL-terminated block (qx_free). */
qx_status qx_file_slurp(qx_ctx *ctx, const char *path, size_t cap, char **out, size_t *len);

/* Whether a file can be made at `path`, asked before the work that fills it: its folder is there and may be written to, and it is
 * none of the files in `kept` (n paths; NULL is none), a folder, a device or a pipe. */
qx_status qx_out_check(qx_ctx *ctx, const char *path, const char *const *kept, int n);

/* Bytes that are free for us in the folder of `path`; -1: not known. */
int64_t qx_out_room(const char *path);

typedef struct qx_outset qx_outset;
typedef struct qx_out qx_out;
qx_status qx_outset_new(qx_ctx *ctx, qx_outset **out);
/* Opens a temporary beside `path` (O_EXCL | O_NOFOLLOW). Refuses a path that is a directory, or the same file as any of `inputs`. */
qx_status qx_out_open(qx_outset *s, const char *path, qx_file *const *inputs, int n_inputs, qx_out **out);
qx_status qx_out_write_at(qx_out *o, int64_t offset, const void *bytes, size_t n); /* thread safe */
/* copy_file_range, falling back to read + write. */
qx_status qx_out_copy_at(qx_out *o, int64_t offset, qx_file *from, int64_t from_offset, int64_t n);
qx_status qx_out_truncate(qx_out *o, int64_t size);
int qx_out_fd(const qx_out *o);
const char *qx_out_temp_path(const qx_out *o);
/* For a set of two files, the second of which refers to the first by name, once both are open. Where both replace older files, *out is a
 * further file to be filled with what the second one would be if the first were called *location (in the same directory; lives as long as
 * the set): it is what stands under the second name while the first changes. *out is NULL where none is needed. */
qx_status qx_outset_stand_in(qx_outset *s, qx_out **out, const char **location);
/* fsync all, rename in order of opening, fsync the directory. After an error the old files are there; on a file system without hard links
 * it may also be the new ones, which then load. */
qx_status qx_outset_commit(qx_outset *s);
/* Removes what was not committed, and frees the set. */
void qx_outset_free(qx_outset *s);
/* Test hooks: the n-th read, write, fsync or rename from now fails; 0 switches off. */
typedef enum qx_io_kind { QX_IO_READ, QX_IO_WRITE, QX_IO_FSYNC, QX_IO_RENAME } qx_io_kind;
void qx_io_fail_at(qx_ctx *ctx, qx_io_kind kind, int64_t n);
int64_t qx_io_fail_left(const qx_ctx *ctx, qx_io_kind kind); /* calls until it fails; 0 or less: it has, or was off */

#endif
