/* format.c - the formatter of messages. Names in messages come from files that nobody has checked, so every string argument
 * is cut and made printable here, once, and no caller can forget it. Numbers go to snprintf one conversion at a time. */
#include "base/ctx.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 256

typedef struct sink { char *out; size_t cap, len; bool cut; } sink;

static void sink_put(sink *s, const char *text, size_t n)
{
    size_t room = s->cap - 1 - s->len;
    if (n > room) s->cut = true, n = room;
    memcpy(s->out + s->len, text, n);
    s->len += n;
}

typedef struct spec { char text[32]; size_t len; int precision; char length, conv; } spec;

static void spec_add(spec *sp, char c)
{
    if (sp->len + 2 < sizeof sp->text) sp->text[sp->len++] = c;
}

static void spec_add_int(spec *sp, int v)
{
    char digits[16];
    int n = snprintf(digits, sizeof digits, "%d", v);
    for (int i = 0; i < n; i++) spec_add(sp, digits[i]);
}

static const char *spec_number(spec *sp, const char *f, va_list *ap, int *value)
{
    *value = 0;
    if (*f == '*') {
        *value = va_arg(*ap, int);
        spec_add_int(sp, *value);
        return f + 1;
    }
    for (; *f >= '0' && *f <= '9'; f++) {
        if (*value < 100000) *value = *value * 10 + (*f - '0');
        spec_add(sp, *f);
    }
    return f;
}

/* Reads one conversion that starts at '%'; returns what follows it. Length 'q' stands for ll and 'H' for hh. */
static const char *spec_read(spec *sp, const char *f, va_list *ap)
{
    int width;
    *sp = (spec){.precision = -1};
    spec_add(sp, *f++);
    while (*f && strchr("-+ #0", *f)) spec_add(sp, *f++);
    f = spec_number(sp, f, ap, &width);
    if (*f == '.') {
        spec_add(sp, *f++);
        f = spec_number(sp, f, ap, &sp->precision);
    }
    while (*f && strchr("hlLzjt", *f)) {
        sp->length = sp->length == 'l' && *f == 'l' ? 'q' : sp->length == 'h' && *f == 'h' ? 'H' : *f;
        spec_add(sp, *f++);
    }
    sp->conv = *f;
    spec_add(sp, *f);
    return *f ? f + 1 : f;
}

static int put_integer(char *t, size_t cap, const spec *sp, va_list *ap)
{
    switch (sp->length) {
    case 'l': return snprintf(t, cap, sp->text, va_arg(*ap, long));
    case 'q': return snprintf(t, cap, sp->text, va_arg(*ap, long long));
    case 'z': return snprintf(t, cap, sp->text, va_arg(*ap, size_t));
    case 'j': return snprintf(t, cap, sp->text, va_arg(*ap, intmax_t));
    case 't': return snprintf(t, cap, sp->text, va_arg(*ap, ptrdiff_t));
    default: return snprintf(t, cap, sp->text, va_arg(*ap, int));
    }
}

static void put_string(sink *s, const spec *sp, const char *arg)
{
    char shown[QX_MESSAGE_MAX], raw[QX_MESSAGE_MAX];
    size_t limit = sp->precision >= 0 ? (size_t)sp->precision : NAME_MAX_BYTES;
    if (limit >= sizeof raw) limit = sizeof raw - 1;
    if (!arg) arg = "(null)";
    size_t n = strnlen(arg, limit + (sp->precision < 0));
    bool longer = n > limit;
    memcpy(raw, arg, n - longer);
    raw[n - longer] = '\0';
    qx_printable(raw, shown, sizeof shown);
    if (sp->precision >= 0 || !longer) {
        char padded[32] = "%";
        size_t flags = 1;
        for (size_t i = 1; i < sp->len && (sp->text[i] == '-' || (sp->text[i] >= '0' && sp->text[i] <= '9')); i++)
            padded[flags++] = sp->text[i];
        padded[flags++] = 's', padded[flags] = '\0';
        int w = snprintf(raw, sizeof raw, padded, shown);
        sink_put(s, raw, w < (int)sizeof raw ? (size_t)w : sizeof raw - 1);
        return;
    }
    sink_put(s, shown, strlen(shown));
    sink_put(s, "...", 3);
}

static void put_one(sink *s, const spec *sp, va_list *ap)
{
    char t[512];
    int n = 0;
    if (sp->conv == '%') t[0] = '%', n = 1;
    else if (sp->conv == 's') put_string(s, sp, va_arg(*ap, const char *));
    else if (sp->conv == 'p') n = snprintf(t, sizeof t, sp->text, va_arg(*ap, void *));
    else if (sp->conv && strchr("diouxXc", sp->conv)) n = put_integer(t, sizeof t, sp, ap);
    else if (sp->length == 'L') n = snprintf(t, sizeof t, sp->text, va_arg(*ap, long double));
    else if (sp->conv && strchr("eEfFgGaA", sp->conv)) n = snprintf(t, sizeof t, sp->text, va_arg(*ap, double));
    if (n > 0) sink_put(s, t, n < (int)sizeof t ? (size_t)n : sizeof t - 1);
}

void qx_format(char *out, size_t cap, const char *fmt, va_list ap)
{
    sink s = {.out = out, .cap = cap};
    va_list args;
    va_copy(args, ap);
    while (*fmt) {
        const char *percent = strchrnul(fmt, '%');
        spec sp;
        sink_put(&s, fmt, (size_t)(percent - fmt));
        fmt = percent;
        if (!*fmt) break;
        fmt = spec_read(&sp, fmt, &args);
        put_one(&s, &sp, &args);
    }
    va_end(args);
    out[s.len] = '\0';
    if (s.cut && cap > 4) memcpy(out + cap - 4, "...", 4);
}
