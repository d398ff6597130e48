/* main.c - qonnx-llm: lets a language model go on with a prompt, token by token.
 *
 *     qonnx-llm MODEL.onnx --prompt "Once upon a time" [--tokenizer FILE.json] [--tokens N] [--temperature T] [--top-k K] [--seed S]
 *
 * Text goes to stdout as it is made; the speed goes to stderr. A token that decodes to nothing (end of text) stops it. */
#include "decoder.h"
#include "pick.h"
#include "spin.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct options {
    const char *model, *prompt, *tokenizer, *session;
    int64_t tokens, head_size;
    llm_pick pick;
    int threads, quiet, help;
} options;

static volatile int stop_flag;
static void on_signal(int sig) { stop_flag = sig != 0; }

static const char usage[] =
    "usage: qonnx-llm MODEL.onnx [--prompt TEXT] [options]\n"
    "  --prompt TEXT         what to go on with [The]\n"
    "  --tokenizer FILE      tokenizer.json [beside the model or one folder above]\n"
    "  --tokens N            how many tokens to make [100]\n"
    "  --temperature T       0: always the likeliest token; higher: more varied [0]\n"
    "  --top-k K             choose among the K likeliest [40]\n"
    "  --seed S              of the choice; the same seed gives the same text [0]\n"
    "  --head-size N         for models that leave the size of their past open\n"
    "  --session OPTIONS     of qonnx_session_open: \"device=cuda simulate=1\"\n"
    "  --threads N           threads [all]\n"
    "  --quiet               no line about speed\n"
    "  --help                this text\n";

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- options ---- */

static int number(const char *text, double lo, double hi, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return *text && !*end && *out >= lo && *out <= hi;
}

static int set_number(options *o, const char *name, const char *value)
{
    double v;
    if (!number(value, 0, 1e15, &v)) return 0;
    if (!strcmp(name, "--tokens")) return o->tokens = (int64_t)v, v >= 1 && v <= 1e6;
    if (!strcmp(name, "--temperature")) return o->pick.temperature = v, v <= 100;
    if (!strcmp(name, "--top-k")) return o->pick.top_k = (int64_t)v, 1;
    if (!strcmp(name, "--seed")) return o->pick.state = (uint64_t)v, 1;
    if (!strcmp(name, "--head-size")) return o->head_size = (int64_t)v, v >= 1 && v <= 4096;
    if (!strcmp(name, "--threads")) return o->threads = (int)v, v <= 4096;
    return 0;
}

static int set_text(options *o, const char *name, const char *value)
{
    if (!strcmp(name, "--prompt")) return o->prompt = value, 1;
    if (!strcmp(name, "--tokenizer")) return o->tokenizer = value, 1;
    if (!strcmp(name, "--session")) return o->session = value, 1;
    return 0;
}

static int parse(int argc, char **argv, options *o)
{
    *o = (options){.prompt = "The", .tokens = 100, .pick = {.top_k = 40}};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quiet")) {
            o->quiet = 1;
        } else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            return o->help = 1;
        } else if (argv[i][0] != '-' && !o->model) {
            o->model = argv[i];
        } else if (i + 1 < argc && (set_text(o, argv[i], argv[i + 1]) || set_number(o, argv[i], argv[i + 1]))) {
            i++;
        } else {
            fprintf(stderr, "qonnx-llm: '%s'%s\n%s", argv[i], i + 1 < argc ? " is unknown or its value is out of range"
                    : " lacks a value or is unknown", usage);
            return 0;
        }
    }
    if (!o->model) fputs(usage, stderr);
    return o->model != NULL;
}

static int fail(qonnx_ctx *ctx, const char *why)
{
    fprintf(stderr, "qonnx-llm: %s\n", why ? why : qonnx_error(ctx));
    return QONNX_FAILED;
}

/* Beside the model or one folder above, where `qonnx quantize` looks too; false: not there. */
static bool find_tokenizer(const char *model, char *path, size_t size)
{
    static const char *const places[] = {"", "../"};
    const char *slash = strrchr(model, '/');
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, size, "%.*s%stokenizer.json", slash ? (int)(slash - model + 1) : 0, model, places[i]);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

static qonnx_code open_tokenizer(qonnx_ctx *ctx, const options *o, const char **why, qonnx_tokenizer **out)
{
    char path[4096];
    if (o->tokenizer) return qonnx_tokenizer_open(ctx, o->tokenizer, out);
    if (find_tokenizer(o->model, path, sizeof path)) return qonnx_tokenizer_open(ctx, path, out);
    *why = "no tokenizer.json beside the model or one folder above: name it by --tokenizer FILE";
    return QONNX_FAILED;
}

/* ---- talking ---- */

typedef struct talk { qonnx_ctx *ctx; qonnx_tokenizer *tokenizer; llm_decoder *decoder; int64_t *ids, n; size_t shown; } talk;

/* Length of text that does not end inside a UTF-8 sequence. */
static size_t whole_characters(const char *s, size_t n)
{
    size_t back = 0;
    while (back < 3 && back < n && ((unsigned char)s[n - 1 - back] & 0xc0) == 0x80) back++;
    if (back == n) return n;
    unsigned char lead = (unsigned char)s[n - 1 - back];
    size_t need = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
    return need > back ? n - 1 - back : n;
}

/* Shows what the tokens so far say beyond what was shown already. */
static qonnx_code show(talk *t, int last)
{
    const char *text;
    qonnx_code c = qonnx_tokenizer_decode(t->tokenizer, t->ids, t->n, &text);
    if (c != QONNX_OK) return c;
    size_t n = strlen(text);
    if (!last) n = whole_characters(text, n);
    if (n > t->shown) fwrite(text + t->shown, 1, n - t->shown, stdout);
    if (n > t->shown) t->shown = n;
    fflush(stdout);
    return QONNX_OK;
}

static int decodes_to_nothing(talk *t, int64_t id)
{
    const char *text;
    return qonnx_tokenizer_decode(t->tokenizer, &id, 1, &text) == QONNX_OK && !*text;
}

static qonnx_code start(talk *t, const options *o)
{
    const int64_t *begin, *ids;
    int64_t n_begin, n;
    qonnx_code c = qonnx_tokenizer_prefix(t->tokenizer, &begin, &n_begin);
    if (c == QONNX_OK) c = qonnx_tokenizer_encode(t->tokenizer, o->prompt, &ids, &n);
    if (c != QONNX_OK) return c;
    t->ids = malloc((size_t)(n_begin + n + o->tokens) * sizeof *t->ids);
    if (!t->ids) return QONNX_FAILED;
    if (n_begin) memcpy(t->ids, begin, (size_t)n_begin * sizeof *begin);
    if (n) memcpy(t->ids + n_begin, ids, (size_t)n * sizeof *ids);
    t->n = n_begin + n;
    return t->n ? show(t, 0) : QONNX_USAGE;
}

static qonnx_code generate(talk *t, options *o)
{
    double begin = seconds(), first = 0;
    int64_t fed = 0, made = 0;
    while (made < o->tokens && !stop_flag) {
        float *logits;
        int64_t vocab;
        qonnx_code c = llm_push(t->decoder, t->ids + fed, t->n - fed, &logits, &vocab);
        if (c != QONNX_OK) return c;
        if (!fed) first = seconds() - begin;
        fed = t->n;
        int64_t id = llm_pick_token(&o->pick, logits, vocab);
        if (decodes_to_nothing(t, id)) break;
        t->ids[t->n++] = id;
        made++;
        if ((c = show(t, 0)) != QONNX_OK) return c;
    }
    show(t, 1);
    putchar('\n');
    double rest = seconds() - begin - first;
    if (!o->quiet && made > 1)
        fprintf(stderr, "%lld tokens, %.1f ms to the first, then %.1f tokens/s%s\n", (long long)made, 1e3 * first,
                (double)(made - 1) / rest, llm_has_past(t->decoder) ? "" : " (no past: every token computes all before it)");
    return QONNX_OK;
}

static int talk_with(qonnx_ctx *ctx, options *o)
{
    talk t = {.ctx = ctx};
    const char *why = NULL;
    qonnx_code c = open_tokenizer(ctx, o, &why, &t.tokenizer);
    if (c == QONNX_OK) {
        t.decoder = llm_open(ctx, o->model, o->session, o->head_size, &why);
        c = t.decoder ? start(&t, o) : QONNX_FAILED;
        if (c == QONNX_USAGE) why = "the prompt is empty";
        if (c == QONNX_OK) c = generate(&t, o);
    }
    if (c != QONNX_OK) fail(ctx, why ? why : t.decoder ? llm_problem(t.decoder) : NULL);
    llm_close(t.decoder);
    if (t.tokenizer) qonnx_tokenizer_close(t.tokenizer);
    free(t.ids);
    return (int)c;
}

int main(int argc, char **argv)
{
    options o;
    spin_briefly(argv);
    if (!parse(argc, argv, &o)) return QONNX_USAGE;
    if (o.help) return fputs(usage, stdout) < 0 ? QONNX_FAILED : QONNX_OK;
    qonnx_ctx *ctx = qonnx_open();
    if (!ctx) return QONNX_FAILED;
    qonnx_set_cancel(ctx, &stop_flag);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int rc = o.threads && qonnx_set_threads(ctx, o.threads) != QONNX_OK ? fail(ctx, NULL) : talk_with(ctx, &o);
    qonnx_close(ctx);
    return rc;
}
