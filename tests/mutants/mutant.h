/* mutant.h - for mutate.py: which mutation of this build runs (QX_MUTANT), and which are reached (QX_MUTANT_LOG). Never part of a build. */
#pragma GCC system_header /* no warnings about what a mutation makes of the code */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((unused)) static int qx_mutant(int number)
{
    static unsigned char seen[4096];
    static const char *log;
    static int chosen = -2;
    if (chosen == -2) {
        log = getenv("QX_MUTANT_LOG");
        chosen = getenv("QX_MUTANT") ? atoi(getenv("QX_MUTANT")) : -1;
    }
    if (log && !seen[number]) {
        char text[16];
        const int n = snprintf(text, sizeof text, "%d\n", number), fd = open(log, O_WRONLY | O_APPEND);
        seen[number] = 1;
        if (fd >= 0 && write(fd, text, (size_t)n) >= 0) close(fd);
    }
    return chosen == number;
}
