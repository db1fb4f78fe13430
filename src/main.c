/*
 * The program: from arguments to an exit status.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"

int main(int argc, char **argv)
{
    report_set_program(argv[0]);
    if (argc == 2 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-version"))) {
        printf("armlet %s\n", ARMLET_VERSION);
        return EXIT_SUCCESS;
    }
    die("usage: armlet --version");
}
