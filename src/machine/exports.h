/*
 * Directories of the host that the guest can mount by NFS: -nfs, and nfsroot= of the kernel's command line.
 * docs/nfs.md, "The way to the guest".  Main thread.
 */
#ifndef ARMLET_MACHINE_EXPORTS_H
#define ARMLET_MACHINE_EXPORTS_H

#include "machine/config.h"
#include "machine/netdevs.h"

struct exports;

/*
 * Serves them at the host address of each network.  *out is NULL when there is nothing to serve.  false: err
 * says which option is wrong.
 */
bool exports_new(const struct config *config, struct netdevs *nets, struct exports **out, GError **err);
/* Before the networks, when no vCPU runs any more.  NULL is allowed. */
void exports_free(struct exports *exports);


/* Is ids=real what an export has when nobody says? */
bool exports_are_real(void);

#endif
