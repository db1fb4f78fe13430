/*
 * See version.h.  Three clients parse "QEMU emulator version X.Y.Z" when they call us by QEMU's name.
 */
#include "machine/version.h"

#include <stdio.h>
#include <string.h>

#include "base/report.h"

void version_print(void)
{
    if (!strncmp(report_program(), "qemu-system-", 12))
        printf("QEMU emulator version %s (armlet %s)\n", QEMU_SPELLING_VERSION, ARMLET_VERSION);
    else
        printf("armlet %s\n", ARMLET_VERSION);
}
