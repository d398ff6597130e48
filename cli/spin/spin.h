/* spin.h - how long the waiting threads of a program spin. Includes nothing of ours: the samples use it beside qonnx.h. */
#ifndef QX_CLI_SPIN_H
#define QX_CLI_SPIN_H

/* The first line of main. Starts the program anew, once, with GOMP_SPINCOUNT=6000, unless the user has set that or
 * OMP_WAIT_POLICY; where that fails it goes on as it is. */
void spin_briefly(char **argv);

#endif
