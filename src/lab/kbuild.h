/*
 * Kernels built from Debian's source with the cross compiler, kept in the cache by what they are made of.
 */
#ifndef ARMLET_LAB_KBUILD_H
#define ARMLET_LAB_KBUILD_H

#include <glib.h>

/*
 * The path of an Image built from linux-source-6.1 with allnoconfig and the lines of `fragment' (NULL:
 * lab_article_config); beside it are config, System.map and vmlinux.  Built unless a kernel of the same fragment,
 * source and compiler is there, which takes minutes and shows progress on stderr.  An option of the fragment that
 * the kernel does not take is an error that names it.  g_free() it; NULL: err says why, in one line.
 */
char *lab_kernel_build(const char *fragment, GError **err);

/* The smallest kernel that has this machine's devices, and its root over NFS: about five minutes on two cores. */
extern const char lab_article_config[];

#endif
