/* options.c - the table of options and its parser: --name VALUE, --name=VALUE, -x VALUE, flags; unknown names suggest the nearest. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { FLAG, TEXT, LIST, INT, NUM, GROUP } kind;
typedef struct row { const char *name; char letter; kind kind; size_t at; double min, max; const char *meta, *help; } row;
#define AT(f) offsetof(sx_options, f)

static const row rows[] = {
    {"Pictures", 0, GROUP, 0, 0, 0, NULL, NULL},
    {"prompt", 'p', LIST, AT(prompts), 0, 0, "TEXT", "what to draw; may be given several times"},
    {"prompts", 0, TEXT, AT(prompts_file), 0, 0, "FILE", "one prompt a line; 'builtin' is the list of 64 that comes with the program"},
    {"negative", 'n', TEXT, AT(negative), 0, 0, "TEXT", "what to keep away from"},
    {"out", 'o', TEXT, AT(out), 0, 0, "FILE", "picture to write (several: NAME-0.png, NAME-1.png ...); with --quantize the new folder"},
    {"steps", 's', INT, AT(steps), 1, 1000, "N", "UNet calls of one picture; default 25, 4 for turbo, lightning and LCM"},
    {"guidance", 'g', NUM, AT(guidance), 0, 100, "G", "classifier-free guidance; default 5 (SD 1.x 7.5; turbo and lightning 0, LCM 1)"},
    {"seed", 'S', INT, AT(seed), 0, 9007199254740992.0, "N", "of the first picture; each further one counts up; default 0"},
    {"count", 'c', INT, AT(count), 1, 4096, "N", "pictures of each prompt"},
    {"size", 0, TEXT, AT(size), 0, 0, "WxH", "in pixels; default: what the config says"},
    {"width", 'W', INT, AT(width), 8, SX_MAX_SIDE, "N", "as --size"},
    {"height", 'H', INT, AT(height), 8, SX_MAX_SIDE, "N", "as --size"},
    {"init", 'i', TEXT, AT(init), 0, 0, "FILE.png", "start from this picture"},
    {"mask", 'm', TEXT, AT(mask), 0, 0, "FILE.png",
     "draw only what is white here anew, with --init; any UNet, best with one made for inpainting"},
    {"strength", 0, NUM, AT(strength), 0.01, 1, "X", "how much of --init to give up; default 0.3, with --mask 1"},
    {"sheet", 0, TEXT, AT(sheet), 0, 0, "FILE.png", "all pictures on one sheet"},
    {"steps-preview", 0, TEXT, AT(steps_preview), 0, 0, "DIR", "the picture after every step"},
    {"Sampling", 0, GROUP, 0, 0, 0, NULL, NULL},
    {"scheduler", 0, TEXT, AT(scheduler), 0, 0, "NAME",
     "euler, euler-karras, euler-trailing, euler-a, ddim, dpmpp-2m, dpmpp-2m-karras, lcm, turbo, lightning, pndm; default: the folder's"},
    {"spacing", 0, TEXT, AT(spacing), 0, 0, "NAME", "leading, trailing or linspace"},
    {"prediction", 0, TEXT, AT(prediction), 0, 0, "NAME", "epsilon, v_prediction or sample"},
    {"eta", 0, NUM, AT(eta), 0, 1, "X", "noise of DDIM"},
    {"clip-skip", 0, INT, AT(clip_skip), 0, 40, "N", "layers of the text encoders to leave out further"},
    {"rng", 0, TEXT, AT(rng), 0, 0, "NAME", "cpu or cuda: which of torch's generators the noise equals; default cpu"},
    {"noise", 0, TEXT, AT(noise), 0, 0, "FILE.npz", "first latent from a file, before scaling"},
    {"refiner", 0, TEXT, AT(refiner), 0, 0, "DIR", "pipeline folder of a refiner"},
    {"refiner-mode", 0, TEXT, AT(refiner_mode), 0, 0, "NAME", "ensemble (default) or img2img"},
    {"refiner-start", 0, NUM, AT(refiner_start), 0.05, 0.99, "X", "share of the steps that the base makes; default 0.8"},
    {"refiner-strength", 0, NUM, AT(refiner_strength), 0.01, 1, "X", "of img2img; default 0.3"},
    {"Parts", 0, GROUP, 0, 0, 0, NULL, NULL},
    {"unet", 0, TEXT, AT(over.model[SX_UNET]), 0, 0, "FILE", "instead of the folder's UNet"},
    {"vae", 0, TEXT, AT(over.model[SX_VAE_DEC]), 0, 0, "FILE", "instead of the folder's VAE decoder"},
    {"vae-encoder", 0, TEXT, AT(over.model[SX_VAE_ENC]), 0, 0, "FILE", "instead of the folder's VAE encoder"},
    {"text-encoder", 0, TEXT, AT(over.model[SX_TEXT1]), 0, 0, "FILE", "instead of the folder's text encoder"},
    {"text-encoder-2", 0, TEXT, AT(over.model[SX_TEXT2]), 0, 0, "FILE", "instead of the folder's second text encoder"},
    {"tokenizer", 0, TEXT, AT(over.tokenizer), 0, 0, "DIR", "folder with vocab.json and merges.txt"},
    {"tokenizer-2", 0, TEXT, AT(over.tokenizer_2), 0, 0, "DIR", "the same for the second text encoder"},
    {"Comparing", 0, GROUP, 0, 0, 0, NULL, NULL},
    {"ref", 0, FLAG, AT(ref), 0, 0, NULL, "also draw with the folder's own parts, same seeds, and compare"},
    {"ref-dir", 0, TEXT, AT(ref_dir), 0, 0, "DIR", "compare with this pipeline instead"},
    {"report", 0, TEXT, AT(report), 0, 0, "DIR", "report.html, report.json, sheets, differences and drift plot"},
    {"lpips", 0, TEXT, AT(lpips), 0, 0, "FILE.onnx", "LPIPS by this network of two pictures in -1..1"},
    {"clip", 0, TEXT, AT(clip), 0, 0, "FILE.onnx", "CLIP scores by this network: pixel_values, and input_ids unless --clip-text has them"},
    {"clip-text", 0, TEXT, AT(clip_text), 0, 0, "FILE.onnx", "CLIP's text side when it is a file of its own"},
    {"min-psnr", 0, NUM, AT(min_psnr), 0, 1000, "DB", "exit with 4 when the mean is below"},
    {"Quantizing", 0, GROUP, 0, 0, 0, NULL, NULL},
    {"calibrate", 0, TEXT, AT(calibrate), 0, 0, "FILE", "run these prompts ('builtin' too) and collect statistics of the UNet"},
    {"passes", 0, TEXT, AT(passes), 0, 0, "TEXT",
     "passes or preset to collect for: sdxl-int8, sdxl-fp8, ...; default: ranges for fp8 and int8 at every level"},
    {"stats", 0, TEXT, AT(stats), 0, 0, "FILE", "where the statistics go, for `qonnx quantize --load-stats`"},
    {"quantize", 0, TEXT, AT(quantize), 0, 0, "FORMAT", "fp8, int8, a preset or passes: writes a whole pipeline folder to --out"},
    {"level", 0, TEXT, AT(level), 0, 0, "N",
     "1 convolutions, 2 and feed-forward, 2.5 and q/k/v, 3 all linears (int8), 4 and attention (fp8)"},
    {"float", 0, TEXT, AT(rest), 0, 0, "TYPE", "fp16 or bf16: the type of what stays float in the UNet"},
    {"set", 0, LIST, AT(set), 0, 0, "P=FORMAT", "as in qonnx quantize; may be given several times"},
    {"exclude", 0, LIST, AT(exclude), 0, 0, "PATTERN", "the same"},
    {"force", 'f', FLAG, AT(force), 0, 0, NULL, "replace an output folder that exists"},
    {"Running", 0, GROUP, 0, 0, 0, NULL, NULL},
    {"device", 0, TEXT, AT(device), 0, 0, "NAME", "auto, cpu or cuda"},
    {"compute", 0, TEXT, AT(compute), 0, 0, "NAME", "f32 or bf16"},
    {"simulate", 0, FLAG, AT(simulate), 0, 0, NULL, "quantized nodes in float arithmetic"},
    {"threads", 't', INT, AT(threads), 0, 4096, "N", "default: all cores"},
    {"max-memory", 0, TEXT, AT(max_memory), 0, 0, "SIZE", "for example 8G"},
    {"json", 0, FLAG, AT(json), 0, 0, NULL, "result as JSON on standard output"},
    {"quiet", 'q', FLAG, AT(quiet), 0, 0, NULL, "no progress"},
    {"verbose", 'v', FLAG, AT(verbose), 0, 0, NULL, "what the library logs, too"},
    {"show-prompts", 0, FLAG, AT(show_prompts), 0, 0, NULL, "print the built-in prompts"},
    {"help", 'h', FLAG, AT(help), 0, 0, NULL, "this text"},
    {"version", 0, FLAG, AT(version), 0, 0, NULL, "version of the library"},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

/* Words of text, beginning at column `indent`, in lines of 80 columns that are indented so. */
static void print_words(FILE *to, const char *text, int indent)
{
    enum { COLUMNS = 80 };
    for (int col = indent; *text; text += strspn(text, " ")) {
        const int n = (int)strcspn(text, " ");
        if (col > indent && col + 1 + n > COLUMNS) col = fprintf(to, "\n%*s", indent, "") - 1;
        col += fprintf(to, "%s%.*s", col > indent ? " " : "", n, text);
        text += n;
    }
    fputc('\n', to);
}

void sx_options_help(FILE *to)
{
    enum { INDENT = 33 };
    fprintf(to, "usage: qonnx-sdxl DIR -p PROMPT [-o OUT.png] [options]\n"
                "       qonnx-sdxl DIR --unet QUANTIZED.onnx --ref --prompts FILE --report DIR\n"
                "       qonnx-sdxl DIR --calibrate PROMPTS --stats FILE\n"
                "       qonnx-sdxl DIR --quantize fp8|int8|... --calibrate PROMPTS -o NEWDIR\n"
                "Draws with an ONNX pipeline folder (optimum, diffusers or TensorRT names): SDXL,\n"
                "Turbo, LCM, its refiner, SD 1.x and 2, inpainting.\n");
    for (const row *r = rows; r < rows + N_ROWS; r++) {
        if (r->kind == GROUP) {
            fprintf(to, "\n%s\n", r->name);
            continue;
        }
        char left[64];
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", r->letter ? '-' : ' ', r->letter ? r->letter : ' ', r->letter ? ", " : "  ",
                 r->name, r->meta ? " " : "", r->meta ? r->meta : "");
        if (fprintf(to, "  %-30s ", left) > INDENT) fprintf(to, "\n%*s", INDENT, "");
        print_words(to, r->help, INDENT);
    }
    fprintf(to, "\nExit codes: 0 done, 1 failure, 2 wrong use, 3 unsupported, 4 below --min-psnr.\n");
}

static const row *find(const char *name, size_t n, char letter)
{
    for (const row *r = rows; r < rows + N_ROWS; r++) {
        if (r->kind == GROUP) continue;
        if (letter ? r->letter == letter : strlen(r->name) == n && strncmp(r->name, name, n) == 0) return r;
    }
    return NULL;
}

/* Edit distance, for names up to 30 letters. */
static int distance(const char *a, size_t n, const char *b)
{
    int line[32];
    size_t m = strlen(b);
    if (n > 30 || m > 30) return 99;
    for (size_t j = 0; j <= m; j++) line[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int corner = line[0];
        line[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = corner + (a[i - 1] != b[j - 1]);
            if (line[j] + 1 < best) best = line[j] + 1;
            if (line[j - 1] + 1 < best) best = line[j - 1] + 1;
            corner = line[j];
            line[j] = best;
        }
    }
    return line[m];
}

static int unknown(sx_err *e, const char *name, size_t n)
{
    const row *near = NULL;
    int best = 4;
    for (const row *r = rows; r < rows + N_ROWS; r++) {
        int d = r->kind == GROUP ? 99 : distance(name, n, r->name);
        if (d < best) best = d, near = r;
    }
    return near ? sx_fail(e, SX_USAGE, "unknown option --%.*s; did you mean --%s?", (int)(n < 60 ? n : 60), name, near->name)
                : sx_fail(e, SX_USAGE, "unknown option --%.*s; --help lists all", (int)(n < 60 ? n : 60), name);
}

static int set_number(sx_err *e, const row *r, const char *value, void *at)
{
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    bool whole = r->kind == INT;
    if (!*value || *end || errno || !isfinite(v) || (whole && v != floor(v)))
        return sx_fail(e, SX_USAGE, "--%s: '%.60s' is not a %snumber", r->name, value, whole ? "whole " : "");
    if (v < r->min || v > r->max)
        return sx_fail(e, SX_USAGE, "--%s: %s is out of range, expected %.10g to %.10g", r->name, value, r->min, r->max);
    if (whole) *(int64_t *)at = (int64_t)v;
    else *(double *)at = v;
    return SX_OK;
}

static int set(sx_err *e, sx_options *o, const row *r, const char *value)
{
    void *at = (char *)o + r->at;
    sx_list *l = at;
    switch (r->kind) {
    case FLAG: *(bool *)at = true; return SX_OK;
    case TEXT: *(const char **)at = value; return SX_OK;
    case LIST:
        SX_TRY(sx_regrow(e, (size_t)l->n + 1, sizeof *l->v, (void **)&l->v));
        l->v[l->n++] = value;
        return SX_OK;
    default: return set_number(e, r, value, at);
    }
}

static int parse_one(sx_err *e, sx_options *o, int argc, char **argv, int *i)
{
    const char *a = argv[*i], *value = NULL;
    if (a[0] != '-' || !a[1]) {
        if (o->dir) return sx_fail(e, SX_USAGE, "two folders given, '%.80s' and '%.80s' (a prompt goes behind -p)", o->dir, a);
        o->dir = a;
        return SX_OK;
    }
    bool is_long = a[1] == '-';
    const char *name = a + (is_long ? 2 : 1);
    size_t n = is_long ? strcspn(name, "=") : 1;
    const row *r = find(name, n, is_long ? 0 : name[0]);
    if (!r) return unknown(e, name, is_long ? n : strlen(name));
    if (is_long && name[n] == '=') value = name + n + 1;
    else if (!is_long && name[1]) value = name + 1;
    if (r->kind == FLAG && value) return sx_fail(e, SX_USAGE, "--%s takes no value", r->name);
    if (r->kind != FLAG && !value) {
        if (*i + 1 >= argc) return sx_fail(e, SX_USAGE, "--%s needs a value", r->name);
        value = argv[++*i];
    }
    return set(e, o, r, value);
}

static int read_size(sx_err *e, sx_options *o)
{
    if (!o->size) return SX_OK;
    int w = 0, h = 0, used = 0;
    if (sscanf(o->size, "%5dx%5d%n", &w, &h, &used) != 2 || o->size[used]) {
        used = 0;
        if (sscanf(o->size, "%5d%n", &w, &used) != 1 || o->size[used])
            return sx_fail(e, SX_USAGE, "--size: '%.40s' is not WIDTHxHEIGHT", o->size);
        h = w;
    }
    if (w < 1 || h < 1) return sx_fail(e, SX_USAGE, "--size: %d x %d: both must be positive", w, h);
    o->width = w;
    o->height = h;
    return SX_OK;
}

/* An option that does nothing without another one is a mistake worth telling. */
static int check_company(sx_err *e, const sx_options *o)
{
    const bool compares = o->ref || o->ref_dir, quantizes = o->quantize;
    const struct { bool given, has_company; const char *name, *company; } rules[] = {
        {o->report, compares, "report", "--ref or --ref-dir DIR"},
        {!isnan(o->min_psnr), compares, "min-psnr", "--ref or --ref-dir DIR"},
        {o->lpips, compares, "lpips", "--ref or --ref-dir DIR"},
        {o->clip, compares, "clip", "--ref or --ref-dir DIR"},
        {o->clip_text, o->clip, "clip-text", "--clip FILE"},
        {!isnan(o->strength), o->init, "strength", "--init FILE"},
        {o->mask, o->init, "mask", "--init FILE"},
        {o->refiner_mode, o->refiner, "refiner-mode", "--refiner DIR"},
        {o->passes, o->calibrate, "passes", "--calibrate FILE"},
        {o->stats, o->calibrate || quantizes, "stats", "--calibrate FILE or --quantize FORMAT"},
        {o->level, quantizes, "level", "--quantize FORMAT"},
        {o->rest, quantizes, "float", "--quantize FORMAT"},
        {o->set.n > 0, quantizes, "set", "--quantize FORMAT"},
        {o->exclude.n > 0, quantizes, "exclude", "--quantize FORMAT"},
        {o->force, quantizes, "force", "--quantize FORMAT"}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].given && !rules[i].has_company)
            return sx_fail(e, SX_USAGE, "--%s does nothing without %s", rules[i].name, rules[i].company);
    return SX_OK;
}

int sx_options_parse(sx_err *e, int argc, char **argv, sx_options *o)
{
    *o = (sx_options){.steps = -1, .count = 1, .width = -1, .height = -1, .guidance = NAN, .eta = NAN, .strength = NAN, .min_psnr = NAN,
        .refiner_start = 0.8, .refiner_strength = 0.3};
    for (int i = 1; i < argc; i++) SX_TRY(parse_one(e, o, argc, argv, &i));
    SX_TRY(check_company(e, o));
    return read_size(e, o);
}

void sx_options_free(sx_options *o)
{
    sx_free(o->prompts.v);
    sx_free(o->set.v);
    sx_free(o->exclude.v);
    *o = (sx_options){0};
}
