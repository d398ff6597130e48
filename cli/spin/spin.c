/* spin.c - libgomp's waiting threads spin for milliseconds: where other work runs too, or a container has less time than cores,
 * they take it from the threads they wait for (a job of 0.5 s took 16 s at a load of 14 on 2 cores). It reads its settings before
 * main, so a program has to start itself anew. A library must not: programs that link libqonnx choose for themselves. */
#include "spin.h"

#include <stdlib.h>
#include <unistd.h>

void spin_briefly(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || setenv("GOMP_SPINCOUNT", "6000", 0) != 0) return;
    (void)execv("/proc/self/exe", argv);
}
