/* util.h - errors, memory and text of the sample program. A function that can fail returns 0 or the exit code that the program
 * shall end with, and has left one line of text in the sx_err that it was given. */
#ifndef SX_UTIL_H
#define SX_UTIL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SX_OK = 0, SX_FAILED = 1, SX_USAGE = 2, SX_UNSUPPORTED = 3, SX_GATE = 4 };
typedef struct sx_err { int code; char text[4096]; } sx_err;

int sx_fail(sx_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "<text>: " before the message that is there. */
int sx_note(sx_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define SX_TRY(expr)                         \
    do {                                     \
        int sx_try_ = (expr);                \
        if (sx_try_ != SX_OK) return sx_try_; \
    } while (0)
#define SX_TRY_GOTO(st, expr)                \
    do {                                     \
        (st) = (expr);                       \
        if ((st) != SX_OK) goto done;        \
    } while (0)

/* Zeroed memory of count * size bytes (overflow checked, count 0 allowed); free with sx_free, which takes NULL. */
int sx_alloc(sx_err *e, size_t count, size_t size, void **out);
#define SX_NEW(e, count, ptr) sx_alloc((e), (size_t)(count), sizeof **(ptr), (void **)(ptr))
int sx_regrow(sx_err *e, size_t count, size_t size, void **ptr); /* new bytes are not zeroed */
void sx_free(void *p);
int sx_strdup(sx_err *e, const char *s, char **out);
int sx_printf(sx_err *e, char **out, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Growable text, always NUL-terminated once something was added. Zero-initialised is empty. A failed addition is remembered. */
typedef struct sx_text { char *s; size_t len, cap; bool failed; } sx_text;
void sx_text_put(sx_text *t, const char *bytes, size_t n);
void sx_text_add(sx_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Characters that mean something in HTML, or in a JSON string, written so that they do not. */
void sx_text_html(sx_text *t, const char *s);
void sx_text_json(sx_text *t, const char *s);
void sx_text_free(sx_text *t);

/* Whole file as text with a NUL behind it; refused above cap bytes. */
int sx_read_file(sx_err *e, const char *path, size_t cap, char **out, size_t *len);
/* Temporary beside path, then rename: the file is complete or not there. */
int sx_write_file(sx_err *e, const char *path, const void *bytes, size_t len);
bool sx_is_file(const char *path);
bool sx_is_dir(const char *path);
int sx_make_dirs(sx_err *e, const char *path); /* like mkdir -p */
int sx_join(sx_err *e, const char *dir, const char *name, char **out);
double sx_seconds(void); /* monotonic */

#endif
