/* npz.c - reads .npz archives (libzip), single .npy files, and folders of .npy files through one interface.
 *
 * Archives come from strangers. Member names are labels and never become paths; only stored and deflated members are read, and
 * their sizes must agree with the array header inside, with the ratio that deflate can reach and with the memory budget before
 * anything is allocated. Members are read as a stream from front to back: the checksum is verified when the end is reached. */
#include "calib/data/npz.h"

#include "base/checked.h"
#include "base/file.h"
#include "calib/data/folder.h"
#include "calib/data/npy.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zip.h>

enum { MAX_MEMBERS = 65536, BOMB_BYTES = 64 << 20, BOMB_RATIO = 200 };

typedef struct member {
    const char *name;       /* array name, without .npy */
    zip_uint64_t index;     /* in the archive */
    qx_file *file;          /* a .npy file of its own; NULL: in the archive */
    int64_t size;           /* unpacked bytes with header */
    qx_npy head;
    bool described;
    zip_file_t *stream;     /* open member, or NULL */
    int64_t at;             /* position of stream */
} member;

struct qx_npz {
    qx_ctx *ctx;
    qx_arena *arena;
    const char *path;
    zip_t *zip;
    member *members;
    int n;
};

int qx_npz_count(const qx_npz *z) { return z->n; }
const char *qx_npz_name(const qx_npz *z, int i) { return z->members[i].name; }
const char *qx_npz_path(const qx_npz *z) { return z->path; }

int qx_npz_find(const qx_npz *z, const char *name)
{
    for (int i = 0; i < z->n; i++)
        if (!strcmp(z->members[i].name, name)) return i;
    return -1;
}

void qx_npz_close(qx_npz *z)
{
    if (!z) return;
    for (int i = 0; i < z->n; i++) {
        if (z->members[i].stream) zip_fclose(z->members[i].stream);
        qx_file_close(z->members[i].file);
    }
    if (z->zip) zip_discard(z->zip);
    qx_ctx *ctx = z->ctx;
    qx_arena_free(z->arena);
    qx_free(ctx, z);
}

/* ---- names ---- */

/* A member name is only a label, and begins with '/' where a model was cut at a value of a torch export ("/encoder/Mul_output_0");
 * but one that climbs out of its folder marks a file that nobody should trust. */
static bool name_escapes(const char *s)
{
    if (strchr(s, '\\')) return true;
    for (const char *p = s; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') return true;
        p += n + (p[n] == '/');
    }
    return false;
}

static qx_status add_member(qx_npz *z, const char *name, member **out)
{
    size_t n = strlen(name);
    if (qx_has_suffix(name, ".npy")) n -= 4;
    member *m = &z->members[z->n];
    *m = (member){.name = qx_arena_strndup(z->arena, name, n)};
    if (!m->name) return QX_E_NOMEM;
    if (qx_npz_find(z, m->name) >= 0) QX_FAIL(z->ctx, QX_E_FORMAT, "%s: two arrays named '%s'", z->path, m->name);
    z->n++;
    *out = m;
    return QX_OK;
}

/* ---- archives ---- */

static qx_status check_member(qx_npz *z, const zip_stat_t *s)
{
    if (name_escapes(s->name)) QX_FAIL(z->ctx, QX_E_FORMAT, "%s: member '%s' has a name that leaves the archive", z->path, s->name);
    if (s->encryption_method != ZIP_EM_NONE) QX_FAIL(z->ctx, QX_E_UNSUPPORTED, "%s: member '%s' is encrypted", z->path, s->name);
    if (s->comp_method != ZIP_CM_STORE && s->comp_method != ZIP_CM_DEFLATE)
        QX_FAIL(z->ctx, QX_E_UNSUPPORTED, "%s: member '%s' is packed by method %d; stored (0) and deflated (8) are read", z->path,
                s->name, s->comp_method);
    if (s->size > INT64_MAX || (s->comp_method == ZIP_CM_STORE && s->size != s->comp_size))
        QX_FAIL(z->ctx, QX_E_FORMAT, "%s: member '%s' is stored, but its sizes %llu and %llu differ", z->path, s->name,
                (unsigned long long)s->comp_size, (unsigned long long)s->size);
    if (s->size > BOMB_BYTES && s->size / BOMB_RATIO > s->comp_size)
        QX_FAIL(z->ctx, QX_E_FORMAT, "%s: member '%s' claims %llu bytes from %llu packed ones (more than %d to 1); save it uncompressed",
                z->path,
                s->name, (unsigned long long)s->size, (unsigned long long)s->comp_size, BOMB_RATIO);
    return QX_OK;
}

static qx_status read_directory(qx_npz *z)
{
    zip_int64_t n = zip_get_num_entries(z->zip, 0);
    if (n > MAX_MEMBERS) QX_FAIL(z->ctx, QX_E_FORMAT, "%s: %lld members; at most %d are read", z->path, (long long)n, MAX_MEMBERS);
    z->members = qx_arena_array(z->arena, (size_t)n + 1, sizeof *z->members);
    if (!z->members) return QX_E_NOMEM;
    for (zip_int64_t i = 0; i < n; i++) {
        zip_stat_t s;
        zip_stat_init(&s);
        if (zip_stat_index(z->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW, &s) != 0 || !s.name)
            QX_FAIL(z->ctx, QX_E_FORMAT, "%s: member %lld: %s", z->path, (long long)i, zip_strerror(z->zip));
        QX_TRY(check_member(z, &s));
        if (!qx_has_suffix(s.name, ".npy")) QX_FAIL(z->ctx, QX_E_FORMAT, "%s: member '%s' is not a .npy array", z->path, s.name);
        member *m;
        QX_TRY(add_member(z, s.name, &m));
        m->index = (zip_uint64_t)i;
        m->size = (int64_t)s.size;
    }
    return QX_OK;
}

static qx_status open_archive(qx_npz *z)
{
    int code = 0;
    z->zip = zip_open(z->path, ZIP_RDONLY | ZIP_CHECKCONS, &code);
    if (z->zip) return read_directory(z);
    if (code == ZIP_ER_NOENT) QX_FAIL(z->ctx, QX_E_IO, "%s: no such file", z->path);
    zip_error_t e;
    zip_error_init_with_code(&e, code);
    qx_status st = qx_fail(z->ctx, code == ZIP_ER_OPEN || code == ZIP_ER_READ ? QX_E_IO : QX_E_FORMAT,
                           "%s: not a readable .npz archive: %s (samples are .npz or .npy files, as numpy.savez writes them; text "
                           "goes to --text)",
                           z->path, zip_error_strerror(&e));
    zip_error_fini(&e);
    return st;
}

/* ---- .npy files ---- */

static qx_status add_npy_file(qx_npz *z, const char *path, const char *name)
{
    member *m;
    QX_TRY(add_member(z, name, &m));
    QX_TRY(qx_file_open(z->ctx, path, &m->file));
    m->size = qx_file_size(m->file);
    return QX_OK;
}

static qx_status open_npy(qx_npz *z)
{
    const char *slash = strrchr(z->path, '/');
    z->members = qx_arena_array(z->arena, 1, sizeof *z->members);
    return z->members ? add_npy_file(z, z->path, slash ? slash + 1 : z->path) : QX_E_NOMEM;
}

static qx_status open_folder(qx_npz *z)
{
    const char **names;
    int n;
    QX_TRY(qx_folder_list(z->arena, z->path, ".npy", &names, &n));
    z->members = qx_arena_array(z->arena, (size_t)n + 1, sizeof *z->members);
    if (!z->members) return QX_E_NOMEM;
    for (int i = 0; i < n; i++) {
        const char *path = qx_arena_printf(z->arena, "%s/%s", z->path, names[i]);
        QX_TRY(path ? add_npy_file(z, path, names[i]) : QX_E_NOMEM);
    }
    return QX_OK;
}

/* ---- raw binary files ---- */

static qx_status parse_dims(qx_npz *z, const char *spec, const char *p, int64_t *dims, int *rank)
{
    for (*rank = 0; *p && *p != ']'; (*rank)++) {
        char *end;
        long long v = strtoll(p, &end, 10);
        if (end == p || v < 0 || *rank == QX_MAX_RANK || (*end != ',' && *end != ']')) break;
        dims[*rank] = v;
        p = end + (*end == ',');
    }
    if (strcmp(p, "]")) QX_FAIL(z->ctx, QX_E_USAGE, "'%s': expected name=file:f32[2,3]", spec);
    return QX_OK;
}

/* "name=file.npy" */
static qx_status add_named(qx_npz *z, const char *spec, const char *equals)
{
    const char *name = qx_arena_strndup(z->arena, spec, (size_t)(equals - spec));
    return name ? add_npy_file(z, equals + 1, name) : QX_E_NOMEM;
}

static qx_status add_raw(qx_npz *z, const char *spec)
{
    const char *equals = strchr(spec, '='), *bracket = strrchr(spec, '['), *colon = bracket;
    if (equals && qx_has_suffix(spec, ".npy")) return add_named(z, spec, equals);
    while (colon && colon > equals && *colon != ':') colon--;
    if (!equals || !bracket || colon <= equals) QX_FAIL(z->ctx, QX_E_USAGE, "'%s': expected name=file:f32[2,3]", spec);
    const char *name = qx_arena_strndup(z->arena, spec, (size_t)(equals - spec)),
        *path = qx_arena_strndup(z->arena, equals + 1, (size_t)(colon - equals - 1));
    const char *type = qx_arena_strndup(z->arena, colon + 1, (size_t)(bracket - colon - 1));
    int64_t dims[QX_MAX_RANK];
    int rank;
    member *m;
    if (!name || !path || !type) return QX_E_NOMEM;
    qx_dtype dtype = qx_dtype_parse(type);
    if (qx_dtype_bits(dtype) < 8) QX_FAIL(z->ctx, QX_E_USAGE, "'%s': '%s' is no element type (f32, f16, i64, ... are)", spec, type);
    QX_TRY(parse_dims(z, spec, bracket + 1, dims, &rank));
    QX_TRY(add_npy_file(z, path, name));
    m = &z->members[z->n - 1];
    QX_TRY(qx_tensor_shape(z->ctx, &m->head.shape, dtype, rank, dims));
    m->described = true;
    if ((int64_t)m->head.shape.bytes != m->size)
        QX_FAIL(z->ctx, QX_E_FORMAT, "%s: '%s' needs %zu bytes, the file has %lld", path, spec, m->head.shape.bytes, (long long)m->size);
    return QX_OK;
}

static qx_status open_raw(qx_npz *z, const char *const *specs, int n)
{
    QX_TRY(qx_arena_new(z->ctx, &z->arena));
    z->path = qx_arena_strdup(z->arena, specs[0]);
    z->members = qx_arena_array(z->arena, (size_t)n + 1, sizeof *z->members);
    if (!z->path || !z->members) return QX_E_NOMEM;
    for (int i = 0; i < n; i++) QX_TRY(add_raw(z, specs[i]));
    return QX_OK;
}

qx_status qx_npz_open_raw(qx_ctx *ctx, const char *const *specs, int n, qx_npz **out)
{
    *out = NULL;
    qx_npz *z;
    QX_TRY(QX_NEW(ctx, &z));
    z->ctx = ctx;
    qx_status st = open_raw(z, specs, n);
    if (st != QX_OK) qx_npz_close(z);
    else *out = z;
    return st;
}

qx_status qx_npz_open(qx_ctx *ctx, const char *path, qx_npz **out)
{
    *out = NULL;
    qx_npz *z;
    QX_TRY(QX_NEW(ctx, &z));
    z->ctx = ctx;
    struct stat sb;
    bool folder = stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
    qx_status st = qx_arena_new(ctx, &z->arena);
    if (st == QX_OK && !(z->path = qx_arena_strdup(z->arena, path))) st = QX_E_NOMEM;
    if (st == QX_OK && !folder && stat(path, &sb) == 0 && !S_ISREG(sb.st_mode)) st = qx_fail(ctx, QX_E_IO, "%s: not a regular file", path);
    if (st == QX_OK) st = folder ? open_folder(z) : qx_has_suffix(path, ".npy") ? open_npy(z) : open_archive(z);
    if (st != QX_OK) qx_npz_close(z);
    else *out = z;
    return st;
}

/* ---- reading ---- */

static qx_status stream_failed(qx_npz *z, member *m, const char *doing)
{
    return qx_fail(z->ctx, QX_E_FORMAT, "%s: array '%s': %s: %s", z->path, m->name, doing,
                   m->stream ? zip_file_strerror(m->stream) : zip_strerror(z->zip));
}

static qx_status stream_exact(qx_npz *z, member *m, void *out, int64_t n)
{
    for (int64_t got = 0; got < n;) {
        zip_int64_t r = zip_fread(m->stream, (char *)out + got, (zip_uint64_t)(n - got));
        if (r < 0) return stream_failed(z, m, "unpacking");
        if (r == 0)
            QX_FAIL(z->ctx, QX_E_FORMAT, "%s: array '%s': ends after %lld of %lld bytes", z->path, m->name, (long long)(m->at + got),
                    (long long)m->size);
        got += r;
    }
    m->at += n;
    if (m->at < m->size) return QX_OK;
    char more; /* reading past the end makes libzip compare the checksum */
    zip_int64_t r = zip_fread(m->stream, &more, 1);
    if (r < 0) return stream_failed(z, m, "checking");
    if (r > 0)
        QX_FAIL(z->ctx, QX_E_FORMAT, "%s: array '%s': longer than the %lld bytes that the archive states", z->path, m->name,
                (long long)m->size);
    return QX_OK;
}

static qx_status stream_to(qx_npz *z, member *m, int64_t offset)
{
    if (!m->stream || m->at > offset) {
        if (m->stream) zip_fclose(m->stream);
        m->at = 0;
        m->stream = zip_fopen_index(z->zip, m->index, 0);
        if (!m->stream) return stream_failed(z, m, "opening");
    }
    uint8_t skipped[4096];
    while (m->at < offset) {
        int64_t left = offset - m->at;
        QX_TRY(stream_exact(z, m, skipped, left < (int64_t)sizeof skipped ? left : (int64_t)sizeof skipped));
    }
    return QX_OK;
}

static qx_status read_bytes(qx_npz *z, member *m, int64_t offset, int64_t n, void *out)
{
    if (offset + n > m->size)
        QX_FAIL(z->ctx, QX_E_FORMAT, "%s: array '%s': needs %lld bytes, %lld are there", z->path, m->name, (long long)(offset + n),
                (long long)m->size);
    if (m->file) return qx_file_read(m->file, offset, (size_t)n, out);
    QX_TRY(stream_to(z, m, offset));
    return stream_exact(z, m, out, n);
}

static qx_status describe(qx_npz *z, member *m)
{
    if (m->described) return QX_OK;
    uint8_t start[12];
    const char *what = qx_arena_printf(z->arena, "%s: array '%s'", z->path, m->name);
    if (!what) return QX_E_NOMEM;
    int64_t n = m->size < (int64_t)sizeof start ? m->size : (int64_t)sizeof start;
    QX_TRY(read_bytes(z, m, 0, n, start));
    size_t length;
    QX_TRY(qx_npy_head_length(z->ctx, what, start, (size_t)n, &length));
    if ((int64_t)length > m->size) QX_FAIL(z->ctx, QX_E_FORMAT, "%s: npy header of %zu bytes in %lld", what, length, (long long)m->size);
    uint8_t *head;
    QX_TRY(qx_alloc(z->ctx, length, (void **)&head));
    memcpy(head, start, (size_t)n);
    qx_status st = (int64_t)length > n ? read_bytes(z, m, n, (int64_t)length - n, head + n) : QX_OK;
    if (st == QX_OK) st = qx_npy_parse(z->ctx, what, head, length, &m->head);
    qx_free(z->ctx, head);
    QX_TRY(st);
    if (m->head.data_offset + (int64_t)m->head.shape.bytes != m->size) {
        char shape[128];
        QX_FAIL(z->ctx, QX_E_FORMAT, "%s: %s needs %zu bytes, %lld are there", what,
                qx_tensor_describe(&m->head.shape, shape, sizeof shape), m->head.shape.bytes,
                (long long)(m->size - m->head.data_offset));
    }
    m->described = true;
    return QX_OK;
}

qx_status qx_npz_describe(qx_npz *z, int i, qx_tensor *t)
{
    QX_TRY(describe(z, &z->members[i]));
    *t = z->members[i].head.shape;
    return QX_OK;
}

qx_status qx_npz_read(qx_npz *z, int i, qx_tensor *out)
{
    member *m = &z->members[i];
    *out = (qx_tensor){0};
    QX_TRY(describe(z, m));
    qx_tensor t = m->head.shape;
    qx_status st = qx_alloc_raw(z->ctx, t.bytes, &t.data);
    if (st != QX_OK) return qx_note(z->ctx, st, "%s: array '%s'", z->path, m->name);
    st = read_bytes(z, m, m->head.data_offset, (int64_t)t.bytes, t.data);
    if (st == QX_OK) st = qx_npy_fix(z->ctx, &m->head, t.data);
    if (st == QX_OK) *out = t;
    else qx_free(z->ctx, t.data);
    return st;
}

/* Part of an array that is stored column-major. */
static qx_status read_part_whole(qx_npz *z, int i, int64_t offset, size_t n, void *out)
{
    qx_tensor t;
    QX_TRY(qx_npz_read(z, i, &t));
    memcpy(out, (const char *)t.data + offset, n);
    qx_tensor_free(z->ctx, &t);
    return QX_OK;
}

qx_status qx_npz_read_part(qx_npz *z, int i, int64_t first, int64_t count, void *out)
{
    member *m = &z->members[i];
    QX_TRY(describe(z, m));
    qx_npy h = m->head;
    int64_t width = qx_dtype_bits(h.shape.dtype) / 8, offset, end = 0;
    size_t n;
    if (first < 0 || !qx_add_i64(first, count, &end) || end > h.shape.numel || !qx_dtype_bytes(h.shape.dtype, count, &n))
        QX_FAIL(z->ctx, QX_E_FAIL, "%s: array '%s': elements %lld..%lld of %lld", z->path, m->name, (long long)first, (long long)end,
                (long long)h.shape.numel);
    offset = first * width;
    if (h.fortran && h.shape.rank > 1) return read_part_whole(z, i, offset, n, out);
    QX_TRY(read_bytes(z, m, h.data_offset + offset, (int64_t)n, out));
    h.shape.numel = count;
    h.shape.rank = 1;
    return qx_npy_fix(z->ctx, &h, out);
}
