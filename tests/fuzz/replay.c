/* replay.c - runs a fuzz target over the files of its corpus, as an ordinary test. */
#include "fuzz.h"

#include <dirent.h>

static int one(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    uint8_t *bytes = malloc(n + 1); /* exact for AddressSanitizer when n > 0 */
    rewind(f);
    bool whole = bytes && fread(bytes, 1, n, f) == n;
    fclose(f);
    uint8_t *exact = realloc(bytes, n ? n : 1);
    if (whole) LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return whole;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            n += one(argv[i]);
            continue;
        }
        for (struct dirent *e; (e = readdir(d));) {
            char path[4096];
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            n += one(path);
        }
        closedir(d);
    }
    printf("%d inputs\n", n);
    return n > 0 ? 0 : 1;
}
