/*
 * The program: from arguments to an exit status.
 *
 * Arguments that begin with `-', or a call by the name qemu-system-aarch64, are QEMU's command line; a word is one of
 * armlet's own commands.
 */
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "machine/machine.h"

/* machine_run() on a QEMU command line. */
static int run_qemu(int argc, char **argv)
{
    GError *err = NULL;
    struct config *config = config_parse(argc, argv, &err);

    if (err)
        die("%s", err->message);
    if (!config)
        return EXIT_SUCCESS;
    if (config->dumpdtb) {
        if (!machine_dump_dtb(config, &err))
            die("%s", err->message);
        config_free(config);
        return EXIT_SUCCESS;
    }
    struct machine *m = machine_new(config, &err);
    if (!m)
        die("%s", err->message);
    int status = machine_run(m);
    machine_free(m);
    config_free(config);
    return status;
}

int main(int argc, char **argv)
{
    report_set_program(argv[0]);
    report_catch_crashes();
    return run_qemu(argc - 1, argv + 1);
}
