/* png.c - PNG files through libpng, with text chunks. Encoding goes to memory, so that a file is written whole or not at all. */
#include <png.h>
#include <string.h>

#include "image.h"

typedef struct job { sx_err *e; int code; } job;

static void on_error(png_structp p, png_const_charp msg)
{
    job *j = png_get_error_ptr(p);
    j->code = sx_fail(j->e, SX_FAILED, "PNG: %s", msg);
    png_longjmp(p, 1);
}

static void on_warning(png_structp p, png_const_charp msg)
{
    (void)p;
    (void)msg;
}

static void put(png_structp p, png_bytep data, size_t n) { sx_text_put(png_get_io_ptr(p), (const char *)data, n); }
static void flush(png_structp p) { (void)p; }

static bool is_ascii(const char *s)
{
    while (*s && (unsigned char)*s < 0x80) s++;
    return !*s;
}

static void put_text(png_structp p, png_infop info, const sx_png_text *text, int n)
{
    for (int i = 0; i < n; i++) {
        png_text t = {.compression = is_ascii(text[i].value) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
                      .key = (char *)text[i].key, .text = (char *)text[i].value};
        png_set_text(p, info, &t, 1);
    }
}

int sx_png_encode(sx_err *e, const sx_image *m, const sx_png_text *text, int n_text, sx_text *out)
{
    job j = {e, SX_OK};
    png_structp p = png_create_write_struct(PNG_LIBPNG_VER_STRING, &j, on_error, on_warning);
    png_infop info = p ? png_create_info_struct(p) : NULL;
    if (!info) {
        png_destroy_write_struct(&p, NULL);
        return sx_fail(e, SX_FAILED, "PNG: out of memory");
    }
    if (setjmp(png_jmpbuf(p)) == 0) {
        png_set_write_fn(p, out, put, flush);
        png_set_IHDR(p, info, (png_uint_32)m->w, (png_uint_32)m->h, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        put_text(p, info, text, n_text);
        png_write_info(p, info);
        for (int y = 0; y < m->h; y++) png_write_row(p, m->rgb + (size_t)y * (size_t)m->w * 3);
        png_write_end(p, info);
    }
    png_destroy_write_struct(&p, &info);
    if (j.code == SX_OK && out->failed) j.code = sx_fail(e, SX_FAILED, "PNG: out of memory");
    return j.code;
}

int sx_png_write(sx_err *e, const char *path, const sx_image *m, const sx_png_text *text, int n_text)
{
    sx_text t = {0};
    int rc = sx_png_encode(e, m, text, n_text, &t);
    if (rc == SX_OK) rc = sx_write_file(e, path, t.s, t.len);
    sx_text_free(&t);
    return rc;
}

int sx_png_read(sx_err *e, const char *path, sx_image *out)
{
    png_image im = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&im, path)) return sx_fail(e, SX_FAILED, "'%s': %s", path, im.message);
    int rc = im.width > SX_MAX_SIDE || im.height > SX_MAX_SIDE
                 ? sx_fail(e, SX_FAILED, "'%s' has %u x %u pixels, at most %d a side are accepted", path, im.width, im.height, SX_MAX_SIDE)
                 : sx_image_new(e, (int)im.width, (int)im.height, 0, out);
    if (rc == SX_OK) {
        im.format = PNG_FORMAT_RGB;
        png_color white = {255, 255, 255};
        if (!png_image_finish_read(&im, &white, out->rgb, 0, NULL)) {
            rc = sx_fail(e, SX_FAILED, "'%s': %s", path, im.message);
            sx_image_free(out);
        }
    }
    png_image_free(&im);
    return rc;
}
